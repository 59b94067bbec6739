"""Converts a .gguf file into a folder that opens in seconds."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import MissingDependencyError, ModelError, first_line
from pretrain_cli.gguf_header import check_header
from pretrain_cli.model.config_checks import LISTED, check_settings
from pretrain_cli.model.gguf_own import OTHERWISE, check_whole, write_own_model
from pretrain_cli.model.kept import is_kept, keep
from pretrain_cli.optional import to_install
from pretrain_cli.storage import source_hash, temporary_folder
from pretrain_cli.tokenizer.gguf_files import drop_made_up, kept_files, write_tokenizer_files


def convert_gguf(file: Path, artifacts: Artifacts) -> Path:
    """Dequantize ``file`` into fp32 safetensors under ``artifacts.bases``, once; later calls find it there.

    Raises:
        MissingDependencyError: the package gguf isn't installed.
        ModelError: the file is damaged, or of an architecture transformers can't read.
    """
    folder = artifacts.bases / f"{file.stem}-{source_hash([file])[:16]}"
    if is_kept(folder, "config.json"):
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Reading a .gguf file needs the package gguf.", f"Install it: {to_install(extra='smollm2')}"
        ) from error
    check_header(file)
    with temporary_folder(artifacts.bases, "gguf") as staging:
        inner = staging / "model"
        kept = kept_files(file)
        if not write_own_model(file, kept, inner):
            _convert(file, inner)
        if not write_tokenizer_files(kept, inner):
            drop_made_up(inner, file)
        keep(inner, folder)
    return folder


def gguf_config(file: Path) -> Any:
    """transformers' config of the model in ``file``, without reading its weights.

    Raises:
        ModelError: the file is damaged, or of an architecture transformers can't read.
    """
    from transformers import AutoConfig

    kept = kept_files(file)
    try:
        from gguf import GGUFReader

        if "config.json" in kept:
            values = json.loads(kept["config.json"])
            check_settings(values, str(file))
            return AutoConfig.for_model(values.pop("model_type"), **values)
        fields = GGUFReader(file).fields
        check_settings({name: fields[name].contents() for name in fields if LISTED.search(name)}, str(file))
        config = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
        width = fields.get(f"{fields['general.architecture'].contents()}.attention.key_length")
    except ModelError:
        raise
    except Exception as error:  # a damaged file makes transformers raise nearly anything
        raise ModelError(f"{file} can't be read as GGUF: {first_line(error)}.", OTHERWISE) from error
    if width is not None and getattr(config, "head_dim", None) is not None:
        config.head_dim = int(width.contents())  # transformers takes its default
    return config


def _convert(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of ``file`` into ``folder``, as transformers reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        # transformers' progress bar for this can't be switched off, and would disturb the live view.
        with contextlib.redirect_stderr(io.StringIO()), _read_once():
            model, report = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                config=gguf_config(file),
                gguf_file=file.name,
                trust_remote_code=False,
                dtype=torch.float32,
                quantization_config=GgufConfig(gguf_file=file.name, dequantize=True),
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # as above
        raise ModelError(f"{file} can't be read as GGUF: {first_line(error)}.", OTHERWISE) from error
    check_whole(file, [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
