"""Remembers which files of an export folder ptk wrote, so that nothing else there is ever replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from pretrain_cli.artifacts import EXPORT_RECORD, Artifacts
from pretrain_cli.errors import ModelError, PtkError, UsageError
from pretrain_cli.locking import in_turn
from pretrain_cli.records import FileRecord, VersionedRecord, damaged_files, read_versioned, record_files
from pretrain_cli.refusals import check_decodable, check_writable
from pretrain_cli.storage import move_file, publish_folder, write_sealed_json

VERSION = 1
ANOTHER = "Choose another folder with --output DIR."


class ExportRecord(VersionedRecord):
    """The files that ptk wrote into an export folder, by name.

    Attributes:
        version: of this format.
        files: as they are, or will be once an export has moved them there.
        replaced: as those were that an export replaces just now; a kill may leave some of both.
    """

    version: int = VERSION
    files: dict[str, FileRecord] = Field(default_factory=dict)
    replaced: dict[str, FileRecord] = Field(default_factory=dict)


def check_output(folder: Path, artifacts: Artifacts, sources: Iterable[str] = ()) -> None:
    """Check that an export may be written to ``folder``, which isn't part of what the other commands keep.

    Args:
        folder: to write to.
        artifacts: what the other commands keep.
        sources: the folders or .gguf files that the export is made from.

    Raises:
        UsageError: its name isn't UTF-8, it can't be written, it is something other than a folder, it is inside one of
            the artifact folder's own folders, contains the artifact folder, or is one of the ``sources``.
    """
    check_decodable(folder, ANOTHER)
    check_is_folder(folder)
    for place in (folder.parent, folder):  # what is made ready stands in the first
        check_writable(place, ANOTHER)
    place, root = folder.resolve(), artifacts.root.resolve()
    own = (artifacts.runs, artifacts.data, artifacts.tokenizer, artifacts.bases)
    if place == root or place in root.parents:
        raise UsageError(f"{folder} contains the artifact folder, so an export can't replace it.", ANOTHER)
    made_from = [Path(source).resolve() for source in sources]
    if place.is_dir() and any(place == (path.parent if path.is_file() else path) for path in made_from):
        raise UsageError(f"{folder} is the model that the export is made from: it would be replaced.", ANOTHER)
    for kept in (path.resolve() for path in own):
        if place == kept or kept in place.parents:
            raise UsageError(
                f"{folder} is inside {kept.name}/ of the artifact folder, which ptk itself keeps.", ANOTHER
            )


def check_is_folder(folder: Path) -> None:
    """Check that ``folder`` is a real folder, or nothing yet: whatever else has that name would be lost.

    Raises:
        UsageError: it is a file, a link, a pipe or a device, or it can't be told.
    """
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{folder} can't be a folder: {error.strerror}.", ANOTHER) from error
    if not stat.S_ISDIR(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "a pipe or a device"
        raise UsageError(f"{folder} is {what}, not a folder: it would be lost.", ANOTHER)


def check_all_ours(folder: Path) -> None:
    """Check that ptk exported every file in ``folder``, unchanged since, so that the folder may be replaced.

    Raises:
        UsageError: one isn't, or ``folder`` is no folder; nothing was touched.
    """
    with in_turn(folder.parent):
        _check_all(folder)


def check_ours(folder: Path, names: Iterable[str]) -> None:
    """Check that ptk exported those of ``names`` that are in ``folder``, unchanged since.

    Raises:
        UsageError: one isn't; nothing was touched.
    """
    with in_turn(folder.parent):
        _check_some(folder, names)


def publish(staging: Path, folder: Path) -> None:
    """Record every file in ``staging``, which ptk has just made, and give it the name ``folder``.

    Raises:
        UsageError: as `check_all_ours`, which may have been long ago.
    """
    _write(staging, ExportRecord(files=record_files(staging)))
    with in_turn(folder.parent):
        _check_all(folder)
        publish_folder(staging, folder, lambda old: {EXPORT_RECORD, *_recorded(old).files}, EXPORT_RECORD)


def move_in(staging: Path, folder: Path) -> list[Path]:
    """Move the files in ``staging`` to ``folder``, in the place of those of an earlier export; returns them there.

    Recorded before they are moved: wherever this is broken off, the next export may replace what it finds.

    Raises:
        UsageError: as `check_ours`, which may have been long ago.
    """
    check_is_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new = record_files(staging)
    with in_turn(folder.parent):
        _check_some(folder, new)
        there = record_files(folder, [name for name in new if (folder / name).exists()])
        after = {**_recorded(folder).files, **new}
        _write(folder, ExportRecord(files=after, replaced=there))
        for name in new:
            move_file(staging / name, folder / name)
        _write(folder, ExportRecord(files=after))
    return [folder / name for name in new]


def _check_all(folder: Path) -> None:
    check_is_folder(folder)
    if folder.is_dir():
        _check(folder, sorted(entry.name for entry in folder.iterdir() if entry.name != EXPORT_RECORD))


def _check_some(folder: Path, names: Iterable[str]) -> None:
    _check(folder, sorted(name for name in names if os.path.lexists(folder / name)))


def _check(folder: Path, names: list[str]) -> None:
    record = _recorded(folder)
    for name in names:
        known = [files[name] for files in (record.files, record.replaced) if name in files]
        if not known:
            raise UsageError(f"{folder} holds {name}, and no record says that ptk wrote it: it would be lost.", ANOTHER)
        if (folder / name).is_symlink() or all(damaged_files(folder, {name: each}, read=True) for each in known):
            raise UsageError(
                f"{folder / name} was changed since ptk exported it: the change would be lost.",
                f"Move the file. Or: {ANOTHER[0].lower()}{ANOTHER[1:]}",
            )


def _recorded(folder: Path) -> ExportRecord:
    """What ptk wrote there; nothing where there is no record that can be read."""
    if not (folder / EXPORT_RECORD).is_file():
        return ExportRecord()
    try:
        return read_versioned(folder / EXPORT_RECORD, ExportRecord, VERSION, VERSION, ModelError, ANOTHER)
    except PtkError:
        return ExportRecord()


def _write(folder: Path, record: ExportRecord) -> None:
    write_sealed_json(folder / EXPORT_RECORD, record.model_dump(mode="json"))
