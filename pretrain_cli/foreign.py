"""Tells the files in a folder that ptk wrote from all others, and removes the first only."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from pretrain_cli.sealing import WITHIN, is_as_sealed
from pretrain_cli.small_files import small_bytes
from pretrain_cli.trees import remove_tree

DRAWN = {"Software": "ptk"}
"""The metadata of a picture that ptk drew."""
DRAWN_BY = b"Software\0ptk"
"""The same as a PNG file has it, near its start."""
Ours = Callable[[Path], set[str]]
"""Gives the files in a folder that ptk wrote, by their names in it with "/" between: ``shards/0.distcp``."""


def matching(patterns: Sequence[str]) -> Ours:
    """Ours are the files right in a folder, and links, whose names match one of ``patterns``, as `fnmatch` reads it."""
    return lambda folder: {
        entry.name
        for entry in folder.iterdir()
        if (entry.is_symlink() or not entry.is_dir()) and any(fnmatch(entry.name, each) for each in patterns)
    }


def foreign_entries(folder: Path, ours: Iterable[str]) -> list[Path]:
    """What is in ``folder`` beside ``ours``: files, and folders in which nothing is ours."""
    own = set(ours)
    parents = _parents(own)

    def walk(place: Path, before: str) -> list[Path]:
        found = []
        for entry in sorted(place.iterdir()):
            name = before + entry.name
            if entry.is_dir() and not entry.is_symlink():
                found += walk(entry, f"{name}/") if name in parents else [] if name in own else [entry]
            elif name not in own:
                found.append(entry)
        return found

    return walk(folder, "")


def remove_ours(folder: Path, ours: set[str], last: Sequence[str] = ()) -> None:
    """Remove ``ours`` from ``folder``; a link goes, what it names stays.

    Args:
        folder: which goes too where it is empty then, as do the folders that ours are in.
        ours: names of files, or of folders that are ours whole.
        last: of these, those that say what is ours: a kill before them leaves the rest known.
    """
    for name in sorted(ours.difference(last)):
        _remove(folder, name)
    for parent in sorted(_parents(ours), key=len, reverse=True):
        _remove_if_empty(folder / parent)
    for name in last:
        if name in ours:
            _remove(folder, name)
    _remove_if_empty(folder)


def _remove(folder: Path, name: str) -> None:
    entry = folder / name
    if entry.parent.resolve() != folder.resolve() / Path(name).parent:  # through a link, or "..": not in here
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno == errno.EIO:
            raise  # otherwise something is in it, or it may not be removed


def keep_aside(path: Path, is_ours: Callable[[Path], bool] | None = None) -> str:
    """Move a file that isn't as ptk wrote it to a name of its own, before ptk writes it anew.

    Args:
        path: of a record, a page or a picture, unless ``is_ours`` knows of another kind.
        is_ours: whether a file is as ptk wrote it.

    Returns:
        What has to be said of that; mostly nothing.
    """
    is_ours = is_ours or _is_as_written
    if not os.path.lexists(path) or (path.is_file() and not path.is_symlink() and is_ours(path)):
        return ""
    place = free_name(path)
    os.replace(path, place)
    return f"{path} wasn't as ptk wrote it: it is kept as {place.name}."


def free_name(path: Path) -> Path:
    """``path`` with as many ".old" as nothing has yet."""
    while os.path.lexists(path):
        path = path.with_name(f"{path.name}.old")
    return path


def _is_as_written(path: Path) -> bool:
    try:
        content = small_bytes(path)
    except OSError:  # too large to be one of ptk's
        return False
    return DRAWN_BY in content[:WITHIN] if path.suffix == ".png" else is_as_sealed(content) is True


def _parents(ours: Iterable[str]) -> set[str]:
    """Names of the folders that ours are in."""
    return {"/".join(name.split("/")[:depth]) for name in ours for depth in range(1, name.count("/") + 1)}
