"""Typed, versioned JSON records: the base class, and how one is read with clear errors."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pretrain_cli.errors import PtkError
from pretrain_cli.sealing import YOURS, broken_seal
from pretrain_cli.storage import file_hash, read_json


class Record(BaseModel):
    """A part of a record: frozen, and tolerant of fields that it doesn't know."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class FileRecord(Record):
    """One published file: its size in bytes, and the xxh3-128 of them."""

    size: int
    hash: str


def record_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """Name → record, of the files in ``folder`` (None: of all that aren't hidden)."""
    if names is None:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return {name: FileRecord(size=(folder / name).stat().st_size, hash=file_hash(folder / name)) for name in names}


def damaged_files(folder: Path, files: Mapping[str, FileRecord], *, read: bool) -> list[str]:
    """What differs from the records, one line for each file.

    Args:
        folder: that the names are in.
        files: name → record.
        read: compare the bytes as well as the sizes.
    """
    found = []
    for name, record in files.items():
        path = folder / name
        try:
            found_there = path.stat()
            size = found_there.st_size
            if not stat.S_ISREG(found_there.st_mode):  # a pipe or a device would be read for ever
                found.append(f"{path} is no longer a file")
            elif size != record.size:
                found.append(f"{path} has {size:,} bytes instead of {record.size:,}")
            elif read and file_hash(path) != record.hash:
                found.append(f"{path} has other bytes than were written")
        except FileNotFoundError:
            found.append(f"{path} is missing")
        except OSError as error:
            found.append(f"{path} can't be read: {error.strerror}")
    return found


class VersionedRecord(Record):
    """A whole file. ``version`` is that of its format."""

    version: int


AnyRecord = TypeVar("AnyRecord", bound=VersionedRecord)


def read_versioned(
    path: Path, kind: type[AnyRecord], oldest: int, newest: int, error: type[PtkError], hint: str
) -> AnyRecord:
    """The record in ``path``.

    Args:
        path: a JSON file; one without a version is taken for the oldest.
        kind: of the record.
        oldest: format that can be read.
        newest: format that can be read.
        error: what is raised.
        hint: what the user can do then.

    Raises:
        DataError: the file isn't a JSON object.
        PtkError: ``error``, where it is damaged or of another format.
    """
    values = read_json(path)
    if told := broken_seal(path):
        raise error(f"{told}.", f"{hint}. {YOURS}")
    version = values.get("version", oldest)
    if isinstance(version, int) and version > newest:
        raise error(
            f"{path} was written by a newer ptk (format {version}; this ptk reads up to {newest}).",
            f"Update ptk. {hint}",
        )
    if not isinstance(version, int) or version < oldest:
        raise error(f"{path} has format {version!r}, which this ptk doesn't read.", hint)
    try:
        return kind.model_validate({**values, "version": version})
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise error(f"{path} is damaged at {where}: {first['msg']}.", hint) from problem
