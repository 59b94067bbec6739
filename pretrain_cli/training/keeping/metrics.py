"""Writes metrics.jsonl, one line for each logged step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from pretrain_cli.foreign import free_name
from pretrain_cli.small_files import small_bytes
from pretrain_cli.storage import NOT_A_LINK, copy_file, read_lines, write_text

AS_IT_IS = getattr(os, "O_BINARY", 0)
"""Windows would write each line end as two bytes, and the file's hash would be another."""


class Metrics:
    """metrics.jsonl: one line per logged step, written at once; lines that the disk refuses wait until it takes them.

    Args:
        path: the file.
        resumed_at: step of the checkpoint that a resume starts from: later lines are cut off first.
        writes: whether this process writes it (rank 0).
    """

    def __init__(self, path: Path, resumed_at: int | None = None, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self._file: int | None = None
        self._waiting = b""
        self.reopen(resumed_at or 0)

    def reopen(self, step: int) -> None:
        """Cut off the lines after ``step``, and continue there."""
        self.close()
        if not self._writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_lines(self.path, step)
        self._open()

    def write(self, values: Mapping[str, float]) -> None:
        """Append a line; values that aren't finite become null."""
        if self._file is not None:
            whole = {key: value if math.isfinite(value) else None for key, value in values.items()}
            self._waiting += json.dumps(whole).encode() + b"\n"
            self._drain()

    def amend(self, values: Mapping[str, float]) -> None:
        """Add values to the last line where it is of the same step, else append a line."""
        if self._file is None:
            return
        lines = read_lines(self.path)
        if not lines or lines[-1]["step"] != values["step"]:
            self.write(values)
            return
        lines[-1] |= values
        self.close()
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
        self._open()

    def sync(self) -> None:
        """Put on disk what was written, before a checkpoint that counts on it.

        Raises:
            OSError: there is no room for it.
        """
        if self._file is None:
            return
        if refusal := self._drain():
            raise OSError(refusal.errno, f"{self.path.name} can't be written: {refusal.strerror}")
        os.fsync(self._file)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._drain()
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | AS_IT_IS | NOT_A_LINK, 0o666)

    def _drain(self) -> OSError | None:
        """Write what waits; why not, where the disk refuses: full, over its quota, or a share that is away."""
        # Unbuffered, so that what it didn't take is known to the byte and follows later.
        assert self._file is not None
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            return error
        return None


def keep_other_lines(path: Path) -> str:
    """Copy a file in which several lines aren't ptk's to a name of its own: what `cut_lines` leaves of it are ptk's.

    Returns:
        What has to be said of that; mostly nothing.
    """
    lines = sum(map(bool, map(bytes.strip, small_bytes(path).splitlines()))) if path.is_file() else 0
    if lines - len(read_lines(path)) <= 1:  # a kill leaves one
        return ""
    copy_file(path, copy := free_name(path))
    return f"{path} holds lines that ptk didn't write: as it was, it is kept as {copy.name}."


def cut_lines(path: Path, step: int) -> None:
    """Leave out the lines after ``step``: a resume makes them again."""
    if path.is_file():
        lines = (json.dumps(line, ensure_ascii=False) for line in read_lines(path) if line["step"] <= step)
        write_text(path, "".join(f"{line}\n" for line in lines))
