"""Copies what can be read only once, standard input and pipes, to files."""

from __future__ import annotations

import os
import select
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import IO

from pretrain_cli.errors import DataError
from pretrain_cli.storage import WRITER_WAIT_S

COPY = ".ptk-pipe-"
"""Begins the name of a copy."""
BLOCK_BYTES = 1 << 20


def is_pipe(mode: int) -> bool:
    """Whether a file of this mode gives its bytes once."""
    return stat.S_ISFIFO(mode)


def check_kind(path: Path, mode: int) -> None:
    """Refuse what has no end, or isn't meant to be read.

    Raises:
        DataError: it is a device or a socket.
    """
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = (
            "a socket"
            if stat.S_ISSOCK(mode)
            else "a terminal"
            if os.path.realpath(path).startswith("/dev/pts")
            else "a device"
        )
        raise DataError(f"{path} is {kind}, not a file.", "Name a file or a folder, or - for standard input.")


def copy_stdin(copy: IO[bytes]) -> None:
    """Write all of standard input to ``copy``."""
    shutil.copyfileobj(sys.stdin.buffer, copy, BLOCK_BYTES)
    copy.flush()


def copy_pipe(path: Path, copy: IO[bytes]) -> None:
    """Write all that comes out of a pipe to ``copy``.

    Raises:
        DataError: nothing writes into it.
    """
    # Without this flag, opening waits for a writer, for ever if there is none.
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        latest, begun = time.monotonic() + WRITER_WAIT_S, False
        while True:
            select.select([source], [], [], 0.2)
            try:
                block = os.read(source, BLOCK_BYTES)
            except BlockingIOError:  # there is a writer, which has written nothing yet
                begun = True
                continue
            if block:
                copy.write(block)
                begun = True
            elif begun or time.monotonic() > latest:
                break
            else:
                time.sleep(0.05)
    finally:
        os.close(source)
    copy.flush()
    if not begun:
        raise DataError(
            f"{path} is a pipe, and nothing writes into it.", f"Start the program that writes: zcat text.gz > {path} &"
        )
