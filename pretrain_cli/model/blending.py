"""Adds the weights of models up, tensor by tensor, into a folder that opens like any model's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_cli.errors import ModelError
from pretrain_cli.formatting import exact
from pretrain_cli.model.files import check_finite, check_weight_files, read_model_json, weight_shapes
from pretrain_cli.storage import copy_file, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 1 << 30
"""Bytes of a file of the result: as much as is held at once, besides one tensor of each model."""
NAME_ONLY = {
    *("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "vocab_size", "architectures"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings"),
}
"""Keys of config.json that may differ: they change nothing in what the weights compute."""
LEAST_SHARE = 1e-6
TABLES = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight", "embed_out.weight")
"""Ends of the names of tensors with a row for each entry of the vocabulary."""


@dataclass(frozen=True)
class Part:
    """A model and what its weights are multiplied by before they are added up.

    Attributes:
        name: for errors and the card.
        folder: with config.json and safetensors files.
        tokenizer: folder with its tokenizer.json.
        weight: 0.4, or -1 for what is taken away.
    """

    name: str
    folder: Path
    tokenizer: Path
    weight: float


@dataclass(frozen=True)
class Blended:
    """What was written: tensors, weights in them, and bytes."""

    tensors: int
    parameters: int
    bytes: int


def check_parts(parts: Sequence[Part]) -> Part:
    """Check that the models can be added up; the one with the largest vocabulary, which lends its tokenizer.

    A vocabulary may be larger than another where it has all of its entries, at the same ids.

    Raises:
        ModelError: they have other architectures, tensors, shapes or tokenizers.
    """
    vocabularies = {part: _vocabulary(part) for part in parts}
    widest = max(parts, key=lambda part: len(vocabularies[part]))
    config, shapes = _config(parts[0]), _shapes(parts[0])
    for part in parts:
        _check_vocabulary(part, vocabularies[part], widest, vocabularies[widest])
        own = _config(part)
        for key in sorted(config.keys() | own.keys()):
            one, other = config.get(key), own.get(key)
            if one != other:
                raise ModelError(
                    f"{parts[0].name} and {part.name} compute differently: {key} is {one} and {other}.",
                    "Blend models that were trained from the same base.",
                )
        _check_shapes(parts[0], shapes, part, _shapes(part))
    return widest


def blend_folders(parts: Sequence[Part], widest: Part, target: Path) -> Blended:
    """Write the sum of the parts' weights, each times its own, to ``target``; tokenizer and config are the widest's.

    One tensor of each model is held at once, in fp32, and one file of the result. A row that only some of the models
    have, for an entry of a vocabulary that grew, is the weighted mean of theirs.

    Args:
        parts: that `check_parts` lets through.
        widest: of these, the one that it names.
        target: a folder that isn't there yet.

    Raises:
        ModelError: weights that are damaged, or a sum that isn't finite.
    """
    import torch
    from safetensors.torch import save_file

    readers = {part: _Reader(part.folder) for part in parts}
    target.mkdir(parents=True)
    files = _planned(readers[widest])
    index: dict[str, str] = {}
    total = parameters = 0
    for number, names in enumerate(files, 1):
        file = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        made: dict[str, Tensor] = {}
        for name in names:
            like = readers[widest].read(name)
            found = [(part.weight, readers[part].read(name)) for part in parts]
            made[name] = _sum(found, like).to(like.dtype).contiguous() if like.is_floating_point() else like
            check_finite({name: made[name]}, " + ".join(part.name for part in parts))
            index[name] = file
            parameters += like.numel()
            total += made[name].numel() * made[name].element_size()
        with torch.no_grad():
            save_file(made, target / file, metadata={"format": "pt"})
        del made
    if len(files) > 1:
        write_json(target / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})
    for name in ("config.json", "generation_config.json"):
        if (widest.folder / name).is_file():
            copy_file(widest.folder / name, target / name)
    return Blended(len(index), parameters, total)


def _sum(found: list[tuple[float, Tensor]], like: Tensor) -> Tensor:
    """fp32 of ``like``'s shape; of rows that not all have, the weighted mean of those there are."""
    import torch

    if not like.ndim:
        return sum((tensor.float() * weight for weight, tensor in found), torch.zeros(()))
    total = torch.zeros(like.shape, dtype=torch.float32)
    start = 0
    for end in sorted({min(tensor.shape[0], like.shape[0]) for _, tensor in found}):
        own = [(weight, tensor) for weight, tensor in found if tensor.shape[0] >= end]
        share = sum(weight for weight, _ in own)
        if abs(share) < LEAST_SHARE:  # those who know the entry still say what it is
            own, share = [(1.0, own[0][1])], 1.0
        scale = 1.0 if len(own) == len(found) else 1 / share
        for weight, tensor in own:
            total[start:end].add_(tensor[start:end].float(), alpha=weight * scale)
        start = end
    return total


class _Reader:
    """Reads tensors of a folder by name, one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files: list[Any] = [safe_open(file, "pt") for file in check_weight_files(folder)]
        self._at: dict[str, Any] = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118, it isn't a dict

    def names(self) -> Iterator[tuple[str, int]]:
        """Each tensor's name, and its bytes."""
        for name, file in self._at.items():
            part = file.get_slice(name)
            yield name, math.prod(part.get_shape()) * _width(part.get_dtype())

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._at[name].get_tensor(name)
        return tensor


def _width(dtype: str) -> int:
    return {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}.get(dtype, 1)


def _planned(reader: _Reader) -> list[list[str]]:
    """Names of the tensors by file."""
    files: list[list[str]] = [[]]
    held = 0
    for name, size in reader.names():
        if held and held + size > SHARD_BYTES:
            files.append([])
            held = 0
        files[-1].append(name)
        held += size
    return files


def _shapes(part: Part) -> dict[str, tuple[int, ...]]:
    files = check_weight_files(part.folder)
    if not files:
        raise ModelError(
            f"The weights of {part.name} are in torch's older format.", "Write them anew: ptk export FOLDER --to hf"
        )
    return weight_shapes(files)


def _check_shapes(
    first: Part, shapes: dict[str, tuple[int, ...]], part: Part, others: dict[str, tuple[int, ...]]
) -> None:
    hint = "Blend models that were trained from the same base."
    for name in sorted(shapes.keys() | others.keys()):
        if name not in shapes or name not in others:
            lacking, other = (part, first) if name in shapes else (first, part)
            raise ModelError(f"{lacking.name} has no tensor {name}, which {other.name} has.", hint)
        one, two = shapes[name], others[name]
        if one != two and not (name.endswith(TABLES) and one[1:] == two[1:]):
            raise ModelError(f"{name} has the shape {one} in {first.name}, and {two} in {part.name}.", hint)


def _config(part: Part) -> dict[str, Any]:
    values = read_model_json(part.folder / "config.json")
    return {key: value for key, value in values.items() if key not in NAME_ONLY}


def _vocabulary(part: Part) -> dict[str, int]:
    """Entry → id, added tokens included."""
    file = part.tokenizer / "tokenizer.json"
    if not file.is_file():
        raise ModelError(f"{part.name} has no tokenizer.json.", "Put the model's tokenizer next to its weights.")
    spec = read_json(file)
    entries = spec["model"]["vocab"]
    own = dict(entries) if isinstance(entries, dict) else {str(entry): at for at, entry in enumerate(entries)}
    return own | {token["content"]: token["id"] for token in spec.get("added_tokens", [])}


def _check_vocabulary(part: Part, own: dict[str, int], widest: Part, entries: dict[str, int]) -> None:
    wrong = next((text for text, index in own.items() if entries.get(text) != index), None)
    if wrong is None:
        return
    there = entries.get(wrong)
    what = f"and {widest.name} doesn't have it" if there is None else f"in {widest.name} it is {exact(there)}"
    raise ModelError(
        f"The tokenizers of {part.name} and {widest.name} don't line up: {json.dumps(wrong, ensure_ascii=False)} is "
        f"entry {exact(own[wrong])}, {what}.",
        "Blend models with the same tokenizer, or one that continues the other's (ptk prepare --extend-vocab).",
    )
