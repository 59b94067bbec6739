"""Writes to stdout and stderr without failing when nobody reads them anymore."""

from __future__ import annotations

import os
import sys
from typing import IO, Any, TextIO

from rich.console import Console as RichConsole


class Stream(RichConsole):
    """rich's console, which ends quietly when its reader has gone (`| head`)."""

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1 here, as if the command had failed."""
        raise BrokenPipeError


class Stderr:
    """Where progress and errors go, for as long as somebody reads it.

    A terminal that was closed, or a `tee` that the same Ctrl-C has ended, must not end a training run before it has
    saved: after the first line that can't be written, stderr leads to nothing.
    """

    def __init__(self) -> None:
        # Under a live view sys.stderr is rich's proxy, which writes to this.
        self._stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            let_go(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            let_go(self._stream)


def let_go(stream: IO[str]) -> None:
    """Send what a stream still holds, and all that follows, to nothing: its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
