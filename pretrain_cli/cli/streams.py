"""Writes to stdout and stderr without failing when nobody reads them anymore."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import IO, Any, TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from pretrain_cli.cli.visible import visible


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
