"""Walks and removes folders of any depth: Python's own ways call themselves for each level, and give up at 1,000."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Entry = os.DirEntry[str]


def walk(root: Path | str, refused: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, list[Entry]]]:
    """Each folder in ``root``, itself first, with its files and links; folders that links lead to are left out.

    Args:
        root: a folder.
        refused: is told of folders that can't be listed, as where a path is longer than the system takes.
    """
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        files: list[Entry] = []
        try:
            with os.scandir(folder) as scan:
                for entry in scan:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        files.append(entry)
        except OSError as error:
            if refused is not None:
                refused(error)
            continue
        waiting += folders
        yield folder, files


def everything_in(folder: Path) -> list[Path]:
    """All folders, files and links below ``folder``, in the order of their names; none where it is no folder.

    Raises:
        OSError: it can't all be listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    if not folder.is_dir():
        return []
    found: list[Path] = []
    for place, files in walk(folder, refuse):
        found += [Path(place), *(Path(file.path) for file in files)]
    return sorted(found[1:])


def remove_tree(folder: Path, ignore_errors: bool = False) -> None:
    """Remove a folder and all in it, however deep it is; of a link in it, what it names stays.

    Raises:
        OSError: it can't be removed, unless ``ignore_errors``.
    """
    try:
        shutil.rmtree(folder)
    except (RecursionError, OSError) as error:
        try:
            if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.EMFILE):
                raise
            _remove_level_by_level(folder)
        except OSError:
            if not ignore_errors:
                raise
            shutil.rmtree(folder, ignore_errors=True)


def _remove_level_by_level(root: Path) -> None:
    """Move the folders of the second level up to the first until there are none: no path gets long, no call deep."""
    names = (root / f".removed-{number}" for number in itertools.count())
    while entries := list(os.scandir(root)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry).unlink()
                continue
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    Path(inner).rename(next(name for name in names if not os.path.lexists(name)))
                else:
                    Path(inner).unlink()
            Path(entry).rmdir()
    root.rmdir()
