"""Finds what a glob names, with each folder that ``**`` leads to listed once."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator

ANY_DEPTH = "**"


def matches(pattern: str) -> list[str]:
    """The files and folders that ``pattern`` names, as `glob.glob` does, sorted.

    With links, ``glob.glob`` goes round in circles: two links to the folder that they are in make it list 2^40 folders.

    Args:
        pattern: a path on this machine, with ``**`` for any number of folders.
    """
    parts = pattern.split(os.sep)
    bases = [""]
    while ANY_DEPTH in parts:
        at = parts.index(ANY_DEPTH)
        before, parts = parts[:at], parts[at:]
        parts = list(itertools.dropwhile(lambda part: part == ANY_DEPTH, parts))
        starts = _within(bases, os.sep.join([*before, ""])) if before else bases
        bases = list(_folders(starts))
        parts = parts or ["*"]
    return sorted(set(_within(bases, os.sep.join(parts))))


def _within(bases: Iterable[str], pattern: str) -> Iterator[str]:
    for base in bases:
        yield from glob.iglob(glob.escape(base) + pattern)


def _folders(starts: Iterable[str]) -> Iterator[str]:
    """The folders under ``starts`` and they themselves, each real one once, with a separator at the end.

    Those that links lead to come after all others, so that they go by their own names. As in a glob, no hidden ones.
    """
    visited: set[tuple[int, int]] = set()
    waiting, links = list(starts)[::-1], list[str]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(folder or os.curdir)
            if (status.st_dev, status.st_ino) in visited:
                continue
            with os.scandir(folder or os.curdir) as scan:
                inside = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda each: each.name)
        except OSError:  # no folder, or it may not be listed: a glob finds nothing there
            continue
        visited.add((status.st_dev, status.st_ino))
        yield folder
        inner = [(os.path.join(folder, entry.name, ""), entry.is_symlink()) for entry in inside if entry.is_dir()]
        links += [name for name, is_link in inner if is_link]
        waiting += [name for name, is_link in reversed(inner) if not is_link]
