"""Reads whole files that are small, from folders that may be a stranger's: never a pipe, a device, or a huge file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1_000_000_000
"""Far more than a record, a tokenizer or the metrics of a run take."""
MOST_WORD_BYTES = 10_000
NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""Without it, opening a pipe waits for its writer, for ever if there is none."""


def no_wait(name: str, flags: int) -> int:
    """An ``opener`` that doesn't wait for the writer of a pipe, which may have taken a file's place."""
    return os.open(name, flags | NONBLOCK)


def small_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file of at most ``most``; a file may have holes, and be far larger than what it takes on the disk.

    Raises:
        OSError: it can't be read, is a pipe, a device or a socket, or is larger.
    """
    with open(path, "rb", opener=no_wait) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "It is not a file", str(path))
        content = file.read(most + 1) if found.st_size <= most else b""
        if content is None:  # /proc/kmsg calls itself a file, and waits for ever
            raise OSError(errno.EINVAL, "It is not a file", str(path))
    if found.st_size > most or len(content) > most:
        raise OSError(errno.EINVAL, "It is too large for what it should hold", str(path))
    return content


def first_word(path: Path) -> str:
    """What a file of one line says, without blanks around it; empty where there is no such file, or it is another."""
    try:
        return small_bytes(path, MOST_WORD_BYTES).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def small_text(path: Path, most: int = MOST_BYTES) -> str:
    """The same as text, with line ends as they are.

    Raises:
        OSError: as `small_bytes`.
        UnicodeDecodeError: it isn't UTF-8.
    """
    return small_bytes(path, most).decode("utf-8")
