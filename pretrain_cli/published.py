"""Remembers which files ptk published in a model's folder, and refuses to open one in which they are others.

Three records name them: that of a run's model, of an export, and of a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pretrain_cli.artifacts import (
    CHECKPOINT_FILES,
    CHECKPOINT_NAME,
    CHECKPOINT_RECORD,
    EXPORT_RECORD,
    MODEL_FILES,
    MODEL_RECORD,
    OPTIMIZER_FILES,
    SHARDS,
    TOKENIZER_FILES,
)
from pretrain_cli.errors import ModelError
from pretrain_cli.foreign import matching
from pretrain_cli.records import FileRecord, VersionedRecord, damaged_files, record_files
from pretrain_cli.refusals import denied
from pretrain_cli.sealing import CHANGED, YOURS, is_as_sealed
from pretrain_cli.small_files import small_bytes
from pretrain_cli.storage import write_sealed_json

VERSION = 1
BESIDE = ("README.md", "curves.png", "Modelfile")
"""Files that no model depends on: whoever opens one doesn't look at them."""
TENSORS = (".safetensors", ".pt", ".pth", ".bin", ".gguf", ".distcp")
"""Ends of large files."""


class ModelRecord(VersionedRecord):
    """The files of a run's model, by name."""

    version: int = VERSION
    files: dict[str, FileRecord] = Field(default_factory=dict)


def record_model(folder: Path) -> None:
    """Record every file in ``folder``, a model that is complete but has no name yet."""
    write_sealed_json(folder / MODEL_RECORD, ModelRecord(files=record_files(folder)).model_dump(mode="json"))


def recorded_files(folder: Path) -> dict[str, FileRecord] | None:
    """Name → record, of the files that ptk published in ``folder``; None where nothing says so.

    Raises:
        ModelError: the record itself is damaged.
    """
    # Other folders may have a manifest.json too.
    checkpoint = [CHECKPOINT_RECORD] if CHECKPOINT_NAME.fullmatch(folder.name) else []
    for name in (MODEL_RECORD, EXPORT_RECORD, *checkpoint):
        if (folder / name).is_file():
            return _read(folder / name)
    return None


def check_published(folder: Path, *, tensors: bool, tokenizer_only: bool = False) -> None:
    """The model in ``folder`` is as ptk published it: all sizes, and the bytes of all small files.

    Args:
        folder: of any model; nothing is checked where nothing is recorded.
        tensors: compare the bytes of the weights too, for whoever reads all of them.
        tokenizer_only: nothing but the tokenizer is read there: a checkpoint's is its run's.

    Raises:
        ModelError: a file is another one, or is missing.
    """
    files = {name: record for name, record in (recorded_files(folder) or {}).items() if name not in BESIDE}
    if tokenizer_only:
        files = {name: record for name, record in files.items() if name in TOKENIZER_FILES}
    large = {name: record for name, record in files.items() if name.endswith(TENSORS)}
    small = {name: record for name, record in files.items() if name not in large}
    weights = {name: record for name, record in large.items() if name.endswith(".safetensors")}
    found = (
        damaged_files(folder, large, read=False)
        or damaged_files(folder, small, read=True)
        or (damaged_files(folder, weights, read=True) if tensors else [])
    )
    if found:
        raise ModelError(
            f"The {'tokenizer' if tokenizer_only else 'model'} is damaged: {found[0]}.",
            f"Use a complete copy, or another checkpoint: ptk runs show. {_yours(folder)}",
        )


def listed_files(folder: Path, patterns: Sequence[str] = MODEL_FILES) -> set[str]:
    """The files in a model's folder that its record lists, changed since or not; without one, those of ``patterns``."""
    try:
        return {MODEL_RECORD, *_read(folder / MODEL_RECORD)} & {entry.name for entry in folder.iterdir()}
    except ModelError:  # there is none, or nobody can tell any more
        return matching(patterns)(folder)


def unchanged_files(folder: Path, patterns: Sequence[str] = MODEL_FILES) -> set[str]:
    """The files in a model's folder that are as its record has them; without one, those of ``patterns``."""
    try:
        files = _read(folder / MODEL_RECORD)
    except ModelError:
        return matching(patterns)(folder)
    return {MODEL_RECORD, *(name for name, own in files.items() if not damaged_files(folder, {name: own}, read=True))}


def edited_files(folder: Path) -> list[str]:
    """The files in a model's folder that its record lists and that are others by now; none without a record."""
    try:
        files = recorded_files(folder) or {}
    except ModelError:
        return []
    there = {name: own for name, own in files.items() if (folder / name).is_file()}
    return [name for name, own in there.items() if damaged_files(folder, {name: own}, read=True)]


def checkpoint_files(folder: Path) -> set[str]:
    """The files in a checkpoint's folder that its record lists; without one, those that every checkpoint has.

    What only a resume needs is no longer listed in one that is kept as the best, but a kill may have left it there.
    """
    try:
        listed = {name.replace("\\", "/") for name in _read(folder / CHECKPOINT_RECORD)}
    except ModelError:
        shards = matching(("*.distcp", ".metadata"))(folder / SHARDS) if (folder / SHARDS).is_dir() else set()
        return matching(CHECKPOINT_FILES)(folder) | {f"{SHARDS}/{name}" for name in shards}
    own = {*listed, CHECKPOINT_RECORD, *OPTIMIZER_FILES}
    return {name for name in own if (folder / name).is_file()}


def _yours(folder: Path) -> str:
    names = [name for name in (MODEL_RECORD, EXPORT_RECORD) if (folder / name).is_file()]
    return f"If you changed it yourself, remove {folder / names[0]}." if names else ""


def _read(path: Path) -> dict[str, FileRecord]:
    try:
        content = small_bytes(path)
        values: dict[str, Any] = json.loads(content)
        found = {name: _file(entry) for name, entry in values["files"].items()}
    except PermissionError as error:
        raise ModelError(*denied(error, path)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise ModelError(f"{path} is damaged: {error}.", "Use a complete copy, or another checkpoint.") from error
    if is_as_sealed(content) is False:
        raise ModelError(f"{path} {CHANGED}.", f"Use a complete copy, or another checkpoint. {YOURS}")
    moving: Mapping[str, object] = values.get("replaced") or {}
    return {name: record for name, record in found.items() if name not in moving}


def _file(entry: Any) -> FileRecord:
    """A checkpoint's record has lists."""
    values = dict(zip(("size", "hash"), entry, strict=True)) if isinstance(entry, list) else entry
    return FileRecord.model_validate(values)
