"""Where does a command's output go? Results to stdout, everything else to stderr, errors as two lines."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO, cast

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pretrain_cli.errors import PtkError

PIPE_WIDTH = 240
WIDE = 100
"""Columns from which on a table shows all it has."""


def quiet_import() -> contextlib.AbstractContextManager[io.StringIO]:
    """Keeps what libraries print while they are imported off stdout, as transformers does under WANDB_MODE=offline."""
    return contextlib.redirect_stdout(io.StringIO())


FACT_INDENT = 15
"""Columns before a fact: two, its label, one."""


class Stream(RichConsole):
    """rich's console, which ends quietly where the reader has gone (`| head`)."""

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1 here, as if the command had failed."""
        raise BrokenPipeError


class Stderr:
    """Where progress and errors go, for as long as somebody reads it.

    A terminal that was closed, or a `tee` that the same Ctrl-C has ended, must not end a training before it has
    saved: from the first line that can't be written on, stderr leads to nothing.
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


def let_go(stream: Any) -> None:
    """Send what a stream whose reader has gone still holds, and all that follows, to nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass(frozen=True)
class Console:
    """The one sink of a command's output.

    Attributes:
        json: print one JSON object in place of text.
        quiet: print nothing but errors (and the JSON object, where both are asked for).
        plain: no live view and no colours, even in a terminal.
        debug: show tracebacks and the libraries' own logs.
    """

    json: bool = False
    quiet: bool = False
    plain: bool = False
    debug: bool = False

    @property
    def out(self) -> RichConsole:
        """stdout, looked up at each use, so that a redirect is respected."""
        return Stream(file=sys.stdout, highlight=False, soft_wrap=True, no_color=self.plain or None)

    @property
    def err(self) -> RichConsole:
        """stderr; its width follows the terminal, or COLUMNS."""
        return Stream(file=cast(IO[str], Stderr()), highlight=False, no_color=self.plain or None)

    @property
    def speaks(self) -> bool:
        """Whether text results are wanted at all: neither --json nor --quiet, and the first process of a group."""
        return not (self.json or self.quiet or is_later_rank())

    def result(self, title: str, facts: Iterable[tuple[str, str]], value: object) -> None:
        """A command's result: a sentence and a few labelled facts for people, ``value`` for programs."""
        if is_later_rank():
            return
        if self.json:
            self.print_json(value)
        elif not self.quiet:
            out = self.out
            out.print(f"[bold]{escape(title)}[/]")
            for label, text in facts:
                line = Text.assemble("  ", (f"{label:<12}", "dim"), " ", text)
                if out.is_terminal and " " in text:  # goes on under itself; a path, and a fact in a pipe, is one line
                    table = Table.grid()
                    table.add_row(line[:FACT_INDENT], Text(text, overflow="fold"))
                    out.print(table, soft_wrap=False)
                else:
                    out.print(line)

    def print_json(self, value: object) -> None:
        """One JSON object on stdout; numbers that JSON can't hold become null."""
        print(json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False))

    def table(self, table: object) -> None:
        """A table on stdout; in a pipe as wide as it is, so that no cell is folded."""
        if self.speaks:
            width = None if self.out.is_terminal else PIPE_WIDTH
            Stream(file=sys.stdout, highlight=False, no_color=self.plain or None, width=width).print(table)

    @property
    def narrow(self) -> bool:
        """Whether the terminal has no room for a table's lesser columns."""
        out = self.out
        return out.is_terminal and out.width < WIDE

    def text(self, text: str, *, end: str = "\n") -> None:
        """Plain text on stdout, as it is, at once."""
        if self.speaks:
            print(text, end=end, flush=True)

    def next(self, *commands: str) -> None:
        """Name what a user would type next."""
        if self.speaks:
            self.err.print(f"[dim]Next:[/] {escape('   or   '.join(commands))}", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that the user may want to act on."""
        if not (self.quiet or is_later_rank()):
            self.err.print(f"[yellow]Warning:[/] {escape(text)}", soft_wrap=True)

    def error(self, error: PtkError) -> None:
        """Two lines on stderr, or with --json one error object on stdout."""
        if self.json:
            fields = {
                "kind": error.kind,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            self.print_json({"error": fields})
        message, hint = (" ".join(text.split()) for text in (error.message, error.hint))
        self.err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
        if hint:
            self.err.print(f"[bold]Hint:[/] {escape(hint)}", soft_wrap=True)


def is_later_rank() -> bool:
    """Whether this is a process above rank 0 of a distributed job: those never print results."""
    return os.environ.get("RANK", "0") not in ("", "0")


def to_plain(value: Any) -> Any:
    """``value`` in what JSON can hold: dataclasses as objects, paths as text, infinities and NaN as null."""
    if hasattr(value, "to_json"):
        return to_plain(value.to_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return to_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def shell(*words: str) -> str:
    """Words as one would type them."""
    return shlex.join(words)
