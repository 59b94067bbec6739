"""Tells what prepare wrote from what somebody else put beside it, which is never removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.foreign import foreign_entries, free_name, matching, remove_ours
from pretrain_cli.locking import is_locked
from pretrain_cli.manifest import LISTS, MANIFEST, VERSION, Manifest
from pretrain_cli.records import damaged_files, read_versioned
from pretrain_cli.sealing import is_as_sealed
from pretrain_cli.small_files import small_bytes
from pretrain_cli.storage import OURS, copy_file
from pretrain_cli.tokenizer.copy import COMPANIONS
from pretrain_cli.tokenizer.load import EXTENSION
from pretrain_cli.trees import everything_in, remove_tree

ROW_FOLDERS = ("data/train", "data/validation")
FOLDERS = ("tokenizer", *ROW_FOLDERS)
ROWS = re.compile(r"data-\d{5}-of-\d{5}\.arrow")
STAGED_LISTS = ("inputs.arrow", "rejected.jsonl", f".*.{OURS}*")
STAGED_ROWS = ("data-*-of-*.arrow", "unfinished-*", "state.json", "dataset_info.json")
TOKENIZER = ("tokenizer.json", *COMPANIONS, EXTENSION)
STAGED_TOKENIZER = (*TOKENIZER, f".*.{OURS}*")
WORK = re.compile(r"(shards|tokenizer)-[0-9a-f]{16}|tokenizer\.new|rejected\.jsonl|middles\.ids|\.ptk-.*")
LOCKS = re.compile(r"\.shards-\d+-of-\d+")


def published_names(artifacts: Artifacts) -> set[str] | None:
    """Paths in the artifact folder of what prepare published there; None where no record says that it did.

    A prepare that was killed while it published has set the record of the last one aside.
    """
    records = (artifacts.manifest, artifacts.manifest.with_name(f".{OURS}old-{artifacts.manifest.name}"))
    found = [names for path in records if (names := _recorded(artifacts, path)) is not None]
    return set().union(*found) if found else None


def ours_in(folder: str, names: set[str] | None, place: Path) -> set[str]:
    """The files in ``place`` that are prepare's, where it was, or is, the folder of this name."""
    found = {name.removeprefix(f"{folder}/") for name in names or () if name.startswith(f"{folder}/")}
    return found | (_rows(place, known=False) if folder.startswith("data/") else set())


def copy_prepared(artifacts: Artifacts, folder: Path) -> None:
    """Copy the prepared tokenizer into a new ``folder``: its own files, and none that somebody put beside them."""
    folder.mkdir()
    for name in sorted(ours_in("tokenizer", published_names(artifacts), artifacts.tokenizer)):
        if (artifacts.tokenizer / name).is_file():
            copy_file(artifacts.tokenizer / name, folder / name)


def copy_edited(artifacts: Artifacts) -> list[str]:
    """Copy the small files of the last prepare that somebody has changed to names that the next one keeps.

    Returns:
        What has to be said of each.
    """
    try:
        files = read_versioned(artifacts.manifest, Manifest, VERSION, VERSION, DataError, "").files
    except (DataError, OSError):
        return []
    told = []
    for name in (name for name in files if not name.startswith(ROW_FOLDERS)):
        path = artifacts.root / name
        if path.is_file() and damaged_files(artifacts.root, {name: files[name]}, read=True):
            copy = free_name(path)
            copy_file(path, copy)
            told.append(f"{path} wasn't as ptk wrote it: it is kept as {copy.name}.")
    return told


def check_replaceable(artifacts: Artifacts, pieces: Iterable[str]) -> None:
    """Check that prepare may publish ``pieces``: paths in the artifact folder of what it would replace.

    With a record of the last prepare, other files in its folders are kept. Without, a file there is nobody knows whose.

    Raises:
        UsageError: there is something that no record says ptk wrote; nothing was touched.
    """
    names = published_names(artifacts)
    for piece in pieces:
        path = artifacts.root / piece
        if piece not in FOLDERS:
            _check_file(path, piece, names)
        elif path.is_dir() and names is None:
            own = _rows(path, known=False) if piece.startswith("data/") else set()
            for entry in foreign_entries(path, own):
                if file := next((each for each in (entry, *everything_in(entry)) if not each.is_dir()), None):
                    raise _refusal(file)
        elif (path.exists() or path.is_symlink()) and not path.is_dir():
            raise _refusal(path)


def clear_staged(folder: Path) -> None:
    """Remove what a prepare left in its staging folder, and leave what it wouldn't have written."""
    ours = matching(STAGED_LISTS)(folder) if folder.is_dir() else set()
    if (manifest := folder / "manifest.json").is_file() and _looks_like_ours(manifest):
        ours.add(manifest.name)
    for name, patterns in (("train", STAGED_ROWS), ("validation", STAGED_ROWS), ("tokenizer", STAGED_TOKENIZER)):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            ours |= {f"{name}/{each}" for each in matching(patterns)(folder / name)}
            if not any((folder / name).iterdir()):
                ours.add(name)
    remove_ours(folder, ours)


def check_empty(folder: Path) -> None:
    """Check that nothing is left in a folder that prepare wants for itself.

    Raises:
        UsageError: somebody else's file is.
    """
    entries = everything_in(folder)
    if entries:
        raise _refusal(next((entry for entry in entries if not entry.is_dir()), entries[0]))


def clear_work(work: Path, *kept: Path) -> None:
    """Remove the shards and tokenizers of earlier prepares from a work folder; other files stay.

    None while other processes encode shards there (``data.shard``): some may be theirs.
    """
    if _shards_are_encoded(work.parent):
        return
    for entry in list(work.iterdir()) if work.is_dir() and not work.is_symlink() else ():
        if entry not in kept and WORK.fullmatch(entry.name):
            if entry.is_dir() and not entry.is_symlink():
                remove_tree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def clear_links(work: Path) -> None:
    """Remove links from what an earlier prepare seems to have left in a work folder: prepare writes through none."""
    for entry in work.iterdir():
        if WORK.fullmatch(entry.name):
            for path in (entry,) if entry.is_symlink() else everything_in(entry):
                if path.is_symlink():
                    path.unlink()


def remove_work(artifacts: Artifacts) -> None:
    """Remove what prepare needed until its output was complete: the work folder, and the locks of shards."""
    if _shards_are_encoded(artifacts.data):
        return
    work = artifacts.data / ".work"
    clear_work(work)
    remove_ours(work, set())
    for entry in list(artifacts.data.iterdir()):
        if LOCKS.fullmatch(entry.name) and entry.is_dir():
            remove_ours(entry, {".lock", ".lock.json"})


def _shards_are_encoded(data: Path) -> bool:
    """Whether a process encodes some of the shards just now, under a lock of its own."""
    entries = list(data.iterdir()) if data.is_dir() else []
    return any(is_locked(entry) for entry in entries if LOCKS.fullmatch(entry.name))


def is_manifest(path: Path) -> bool:
    """Whether this is a manifest that ptk wrote, complete and as it was written."""
    try:
        read_versioned(path, Manifest, VERSION, VERSION, DataError, "")
    except (DataError, OSError):
        return False
    return True


def _recorded(artifacts: Artifacts, path: Path) -> set[str] | None:
    if not path.is_file():
        return None
    try:
        files = read_versioned(path, Manifest, VERSION, VERSION, DataError, "").files
    except DataError:
        files = {}
        if not _looks_like_ours(path):
            return None
    if files:
        return {MANIFEST, *files}
    # Of ptk 0.1.0, or damaged: prepare's own names, exactly.
    found = {MANIFEST, *LISTS, *(f"tokenizer/{name}" for name in TOKENIZER)}
    for place in (artifacts.train_rows, artifacts.validation_rows):
        for each in (place, place.with_name(f".{OURS}old-{place.name}")):
            found |= {f"data/{place.name}/{name}" for name in _rows(each, known=True)}
    return found


def _looks_like_ours(path: Path) -> bool:
    """Whether a manifest that can't be read was ptk's: sealed, emptied by a power failure, or of an older version."""
    try:
        content = small_bytes(path)
    except OSError:
        return False
    if not content.strip() or is_as_sealed(content) is not None:
        return True
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"fingerprint", "tokenizer", "settings"} <= values.keys()


def _rows(folder: Path, *, known: bool) -> set[str]:
    """The files of the rows in ``folder``, if its state.json is ptk's, or a manifest says that they are (``known``)."""
    try:
        state = json.loads(small_bytes(folder / "state.json"))
        listed = {str(each["filename"]) for each in state["_data_files"]} if state["_fingerprint"] == "ptk" else set()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        listed = set()
    if known and folder.is_dir():
        listed |= {entry.name for entry in folder.iterdir()}
    names = {name for name in listed if ROWS.fullmatch(name)}
    return {*names, "state.json", "dataset_info.json"} if names or known else set()


def _check_file(path: Path, piece: str, names: set[str] | None) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_file() or piece not in (names or ()):
        raise _refusal(path)


def _refusal(path: Path) -> UsageError:
    return UsageError(
        f"{path} is in the way, and no record says that ptk wrote it: it would be lost.",
        "Move it to another place, or prepare into another folder: --artifacts DIR",
    )
