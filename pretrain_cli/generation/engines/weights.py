"""How do a model folder's weights get into memory fast? Mapped from safetensors, nothing of transformers imported."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_cli.artifacts import read_json
from pretrain_cli.errors import DataError, ModelError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DAMAGED = "It was cut short or overwritten: use another checkpoint."


def read_model_json(file: Path) -> dict[str, Any]:
    """One of a model folder's JSON files.

    Raises:
        ModelError: it isn't there, or is damaged.
    """
    try:
        return read_json(file)
    except DataError as error:
        raise ModelError(error.message, DAMAGED) from error


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files.

    Raises:
        ModelError: there are none, or the index names one that is missing.
    """
    index = folder / INDEX
    if index.is_file():
        named = read_model_json(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise ModelError(f"{index} names no weights.", DAMAGED)
        files = sorted({folder / str(name) for name in named.values()})
    else:
        files = [folder / SINGLE]
    for file in files:
        if not file.is_file():
            raise ModelError(
                f"{folder} has no weights: {file.name} is missing.", "Give a folder that a training run or save made."
            )
    return files


def read_ahead(files: list[Path]) -> threading.Thread:
    """Bring ``files`` into the page cache while the caller imports torch."""

    def touch() -> None:
        for file in files:
            try:
                with open(file, "rb", buffering=0) as handle:
                    buffer = bytearray(1 << 22)
                    while handle.readinto(buffer):
                        pass
            except OSError:  # the real read says what is wrong
                return

    thread = threading.Thread(target=touch, daemon=True)
    try:
        if sum(file.stat().st_size for file in files) < 4e9:
            thread.start()
    except OSError:  # it vanished: the real read says so
        pass
    return thread


def read_weights(files: list[Path]) -> dict[str, torch.Tensor]:
    """Every tensor, memory-mapped.

    Raises:
        ModelError: a file is truncated or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            weights.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged: {error}.", DAMAGED) from error
    return weights
