"""Remembers beside the copy of an artifact folder what object storage has of it, however a command ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from pretrain_cli.errors import PtkError
from pretrain_cli.small_files import small_text
from pretrain_cli.storage import open_own, write_text

SENT = ".sent.jsonl"
"""A line for each file that was sent or brought; of two, the last one counts."""
State = tuple[int, int]
"""A file's size and time."""


def state_of(path: Path) -> State:
    """Size and time of a file.

    Raises:
        OSError: it isn't there.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def read_sent(root: Path) -> dict[str, State]:
    """Name → state of the files in ``root`` when they were the same there; what isn't named is sent again."""
    found: dict[str, State] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in small_text(root / SENT).splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # half a line, as a kill leaves it
                name, size, time = json.loads(line)
                found[str(name)] = (int(size), int(time))
    return found


def write_sent(root: Path, states: Mapping[str, State]) -> None:
    """Remember exactly these."""
    with contextlib.suppress(OSError, PtkError):
        write_text(root / SENT, "".join(_line(name, state) for name, state in states.items()))


def add_sent(root: Path, name: str, state: State) -> None:
    """Remember one more."""
    with contextlib.suppress(OSError), open_own(root / SENT, "a") as file:
        file.write(_line(name, state))


def changed_since(root: Path, below: str) -> bool:
    """Whether a file in the folder ``below`` of ``root`` is another one than when it was sent or brought."""
    for name, state in read_sent(root).items():
        if name.startswith(f"{below}/"):
            with contextlib.suppress(OSError):
                if state_of(root / name) != state:
                    return True
    return False


def _line(name: str, state: State) -> str:
    return f"{json.dumps([name, *state])}\n"
