"""Reads the files of a model's folder, and says what is wrong with them.

Nothing here imports transformers, and torch only where a tensor is read: `ptk generate` reads ahead while torch is
being imported.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.formatting import count_of, exact, shortened
from pretrain_cli.model.config_checks import check_config_fits
from pretrain_cli.storage import read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX, OLDER_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
SINGLE = "model.safetensors"
OLDER_FORMAT = "pytorch_model*.bin"
USE_ANOTHER = "Use a complete copy, or another checkpoint: ptk runs show"
READ_AHEAD_BYTES = 4e9
"""More than this isn't read ahead: it may not stay in the page cache."""


def read_model_json(file: Path) -> dict[str, Any]:
    """One of a model folder's JSON files.

    Raises:
        ModelError: it isn't there, or is damaged.
    """
    try:
        return read_json(file)
    except DataError as error:
        raise ModelError(error.message, USE_ANOTHER) from error


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, by the names that transformers gives them.

    Raises:
        ModelError: there are none, or the index names one that is missing.
    """
    index = folder / INDEX
    files = [folder / SINGLE]
    if index.is_file():
        files = [folder / name for name in _named_by(index)]
    for file in files:
        if not file.is_file() and _in_older_format(folder):
            raise ModelError(
                f"The weights in {folder} are in torch's older format.", "Write them anew: ptk export FOLDER --to hf"
            )
        if not file.is_file():
            raise ModelError(f"{folder} holds no weights: {file.name} is missing.", USE_ANOTHER)
    return files


def _named_by(index: Path) -> list[str]:
    """The files of weights that an index names, all right beside it: others are no part of the model.

    Raises:
        ModelError: it names none, or another file.
    """
    named = read_model_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ModelError(f"{index} names no weights.", USE_ANOTHER)
    names = sorted({str(name) for name in named.values()})
    for name in names:
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise ModelError(f"{index} names '{shortened(name)}', which isn't a file beside it.", USE_ANOTHER)
    return names


def check_weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, each whole and of the config's sizes; none for torch's older format.

    Reads headers only.

    Raises:
        ModelError: no config, no weights, a file that is missing or cut short, or sizes in the config that aren't
            those of the weights.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no model: config.json is missing.", "Give a folder that a run or a Hub model made."
        )
    if _in_older_format(folder):
        if (folder / OLDER_INDEX).is_file():
            _named_by(folder / OLDER_INDEX)
        return []
    files = weight_files(folder)
    check_config_fits(read_model_json(folder / "config.json"), weight_shapes(files), str(folder), USE_ANOTHER)
    return files


def weight_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor; reads headers only.

    Raises:
        ModelError: a file is cut short, or isn't a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                shapes.update({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or cut short: {error}.", USE_ANOTHER) from error
    return shapes


def _in_older_format(folder: Path) -> bool:
    known = (folder / INDEX).is_file() or (folder / SINGLE).is_file()
    return not known and any(folder.glob(OLDER_FORMAT))


def count_weights(folder: Path) -> int:
    """Look at each weight in ``folder`` without building the model; how many there are, 0 in torch's older format.

    Raises:
        ModelError: as `check_weight_files`, or a weight is NaN or infinite.
    """
    from safetensors import safe_open

    count = 0
    for file in check_weight_files(folder):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, it isn't a dict
                tensor = tensors.get_tensor(name)
                check_finite({name: tensor}, str(folder))
                count += tensor.numel()
    return count


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Every tensor, memory-mapped.

    Raises:
        ModelError: a file is cut short, or isn't a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or cut short: {error}.", USE_ANOTHER) from error
    return weights


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
        if sum(file.stat().st_size for file in files) < READ_AHEAD_BYTES:
            thread.start()
    except OSError:  # it vanished: the real read says so
        pass
    return thread


def check_finite(weights: Mapping[str, Tensor], name: str) -> None:
    """Raise ModelError if a weight of the model ``name`` is NaN or infinite; it names the first such tensor."""
    import torch

    for key, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.element_size() == 1:
            continue
        if torch.isfinite(tensor.sum(dtype=torch.float32)):
            continue
        count = int((~torch.isfinite(tensor)).sum())
        if count:  # a sum may overflow where each value is finite
            raise ModelError(
                f"The weights in {name} have {count_of(count, 'NaN or infinite value')}, first in {key}.", USE_ANOTHER
            )


def check_vocabulary(tokenizer_size: int, rows: int, name: str) -> None:
    """Raise ModelError if the tokenizer can make ids that the embedding of the model ``name`` has no row for."""
    if tokenizer_size > rows:
        raise ModelError(
            f"The tokenizer has {exact(tokenizer_size)} entries, but the embedding of {name} has {exact(rows)} rows.",
            "The tokenizer belongs to another model: put the right tokenizer.json beside the weights.",
        )


def not_finite(name: str) -> ModelError:
    """The error for a model that computes NaN or infinite values from weights that are finite."""
    return ModelError(
        f"The model '{name}' gives probabilities that aren't finite.",
        "Its weights are damaged or its training diverged: use an earlier checkpoint.",
    )
