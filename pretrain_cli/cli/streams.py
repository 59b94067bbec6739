"""Writes to stdout and stderr, whatever they can express, and says what it means when they can't be written."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import IO, Any, TextIO, cast

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from pretrain_cli.cli.visible import visible
from pretrain_cli.errors import PtkError

PLAIN = {"→": "->", "·": "-", "…": "...", "×": "x", "–": "-", "—": "-", "√": "sqrt ", "≥": ">=", "≤": "<="}
"""What ptk's own signs become where stdout or stderr can't express them (LC_ALL=C, PYTHONIOENCODING=ascii)."""
AS_FAR_AS_POSSIBLE = "ptk-plain"
"""The name under which Python finds `_plain`."""


class OutputError(PtkError):
    """stdout can't be written, though the command's work may be done: exit code 3."""

    exit_code = 3
    kind = "output"


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    known = [PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in characters]
    return "".join(known), error.end


def make_ready() -> None:
    """Give stdout and stderr ptk's own ways to fail: no character that they lack, and no full disk, ends a command.

    Called once, by the command itself; who uses ptk as a library keeps their own streams.
    """
    codecs.register_error(AS_FAR_AS_POSSIBLE, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=AS_FAR_AS_POSSIBLE)
    sys.stdout = cast(TextIO, Stdout(sys.stdout))


class Stdout:
    """Where results go. What can't be written there is an `OutputError`, and not the trouble of another file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        let_go(self._stream)  # what it still holds would fail again at the exit
        return OutputError(
            f"The output can't be written: {error.strerror or error}.",
            "Files that the command made are complete. Send its output somewhere else.",
        )


class Stream(RichConsole):
    """rich's console, which shows control characters as symbols, and ends quietly when its reader has gone (`| head`).

    Args:
        raw: write control characters as they are.
        keywords: of rich's console.
    """

    def __init__(self, *, raw: bool = False, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._raw = raw

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of ``renderable``. Rich's own movements of the cursor are control segments, and stay."""
        for segment in super().render(renderable, options):
            if self._raw or segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

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
