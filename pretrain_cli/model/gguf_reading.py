"""Converts a .gguf file into a folder that opens in seconds."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import MissingDependencyError, ModelError, first_line
from pretrain_cli.formatting import count_of
from pretrain_cli.storage import publish_folder, source_hash, temporary_folder

OTHERWISE = "Use a complete copy, or give the model as a folder."


def convert_gguf(file: Path, artifacts: Artifacts) -> Path:
    """Dequantize ``file`` into fp32 safetensors under ``artifacts.bases``, once; later calls find it there.

    Raises:
        MissingDependencyError: the package gguf isn't installed.
        ModelError: the file is damaged, or of an architecture transformers can't read.
    """
    folder = artifacts.bases / f"{file.stem}-{source_hash([file])[:16]}"
    if (folder / "config.json").is_file():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Reading a .gguf file needs the package gguf.", "Install it: pip install 'pretrain-cli[smollm2]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        # transformers' progress bar for this can't be switched off, and would disturb the live view.
        with contextlib.redirect_stderr(io.StringIO()), _read_once():
            model, report = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                trust_remote_code=False,
                dtype=torch.float32,
                quantization_config=GgufConfig(gguf_file=file.name, dequantize=True),
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
    except Exception as error:  # a damaged file makes transformers raise nearly anything
        raise ModelError(f"{file} can't be read as GGUF: {first_line(error)}.", OTHERWISE) from error
    if wrong := [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]:
        raise ModelError(
            f"{file} is damaged: it lacks {count_of(len(wrong), 'tensor')} of the model's shape, first {min(wrong)}.",
            OTHERWISE,
        )
    with temporary_folder(artifacts.bases, "gguf") as staging:
        inner = staging / "model"
        model.save_pretrained(inner)
        tokenizer.save_pretrained(inner)
        publish_folder(inner, folder)
    return folder


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers reuse what it has read: it opens the file three times, and looks names up for each module.

    Half of the 20 s that 135M parameters take are that.
    """
    import gguf

    kept = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in kept.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in kept.items():
            setattr(gguf, name, function)
