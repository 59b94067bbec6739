"""Prints a command's output: results to stdout, everything else to stderr, errors as two lines."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.text import Text

from pretrain_cli import processes
from pretrain_cli.addresses import redact
from pretrain_cli.cli.streams import Stderr, Stream
from pretrain_cli.cli.visible import json_text, one_line, shown, visible
from pretrain_cli.cli.wrapping import break_lines
from pretrain_cli.errors import Interrupted, PtkError
from pretrain_cli.version import __version__

JSON_SCHEMA = 1
"""Of the objects that --json prints: another number where a field changes its name or meaning."""
PIPE_WIDTH = 240
WIDE = 100
"""Terminal columns from which tables show all their columns."""
FACT_INDENT = 15
"""Columns before a fact: two spaces, its label, one space."""
COMMAND = re.compile(r'(?<=: )ptk (?!config )(?:"[^"]*"|[^:"])*?(?=[;,.] |[;,.]?$| \(|: )')
"""A command that a sentence names after a colon."""


@dataclass(frozen=True)
class Console:
    """The only place where a command's output goes.

    Attributes:
        json: print one JSON object instead of text.
        quiet: print only errors (and the JSON object, if both are asked for).
        plain: no live view and no colors, even in a terminal.
        debug: show tracebacks and the libraries' logs.
        raw: write a model's text to a terminal as it is, control characters included.
        warnings: all that were given, shown or not: the JSON object has them.
        place: "--artifacts DIR" as it was typed, for the next commands; empty where it wasn't.
    """

    json: bool = False
    quiet: bool = False
    plain: bool = False
    debug: bool = False
    raw: bool = False
    warnings: list[str] = field(default_factory=list)
    place: str = ""

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
        """Whether to print text: neither --json nor --quiet was given, and this is the first process of a group."""
        return not (self.json or self.quiet or is_later_rank())

    def result(self, title: str, facts: Iterable[tuple[str, str]], value: object) -> None:
        """A command's result: a sentence and a few labeled facts for people, ``value`` for programs."""
        if is_later_rank():
            return
        if self.json:
            self.print_json(value)
        elif not self.quiet:
            out = self.out
            out.print(f"[bold]{escape(one_line(title))}[/]")
            for label, fact in facts:
                text = one_line(fact)
                print_broken(out, f"  [dim]{escape(f'{label:<12}')}[/] ", text, FACT_INDENT)

    def print_json(self, value: object) -> None:
        """One JSON object on stdout, with its schema, ptk's version and all warnings; NaN and infinity become null."""
        plain = to_plain(value)
        warnings = list(dict.fromkeys([*self.warnings, *plain.get("warnings", ())]))
        whole = {"schema": JSON_SCHEMA, "version": __version__, **plain, "warnings": warnings}
        all_of_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
        print(json_text(json.dumps(whole, ensure_ascii=not all_of_unicode, allow_nan=False)))

    def table(self, table: object) -> None:
        """A table on stdout; in a pipe it is as wide as it needs to be, so that no cell is folded."""
        if self.speaks:
            width = None if self.out.is_terminal else PIPE_WIDTH
            Stream(file=sys.stdout, highlight=False, no_color=self.plain or None, width=width).print(table)

    @property
    def narrow(self) -> bool:
        """Whether the terminal has no room for a table's less important columns."""
        out = self.out
        return out.is_terminal and out.width < WIDE

    def sentence(self, text: str) -> None:
        """Prose on stdout; in a terminal it breaks between words."""
        if self.speaks:
            print_broken(self.out, "", shown(text))

    def text(self, text: str, *, end: str = "\n") -> None:
        """Plain text on stdout, at once."""
        if self.speaks:
            print(shown(text), end=end, flush=True)

    @property
    def verbatim(self) -> bool:
        """Whether a model's text is written as it is: to a file or pipe, or where ``raw`` says so."""
        return self.raw or not sys.stdout.isatty()

    @property
    def texts(self) -> RichConsole:
        """stdout for a model's texts."""
        return Stream(file=sys.stdout, highlight=False, soft_wrap=True, no_color=self.plain or None, raw=self.verbatim)

    def written(self, text: str, *, end: str = "\n") -> None:
        """A model's text on stdout, at once; in a terminal with its control characters shown as symbols."""
        if self.speaks:
            print(self.model_text(text), end=end, flush=True)

    def model_text(self, text: str) -> str:
        """A model's text as stdout gets it."""
        return text if self.verbatim else visible(text)

    def next(self, *commands: str) -> None:
        """Name the commands a user would type next; each on its own line where they don't fit on one."""
        if self.speaks:
            err, told = self.err, [one_line(self._there(command)) for command in commands]
            line = "   or   ".join(told)
            if err.is_terminal and len(line) + len("Next: ") > err.width:
                line = "\n  or: ".join(told)
            err.print(f"[dim]Next:[/] {escape(line)}", soft_wrap=True)

    def _there(self, command: str) -> str:
        """A command for the same artifact folder as this one's."""
        if " && " in command:
            return " && ".join(map(self._there, command.split(" && ")))
        if not command.startswith("ptk ") or command.startswith("ptk config "):
            return command
        if not self.place or "--artifacts" in command or "--help" in command:
            return command
        words, remark, rest = command.partition(" (")
        return f"{words} {self.place}{remark}{rest}"

    def _placed(self, text: str) -> str:
        """``text`` with each command that it names for the same artifact folder as this one's; secrets are left out."""
        return redact(COMMAND.sub(lambda found: self._there(found[0]), text)) if self.place else text

    def hint(self, text: str) -> None:
        """How to go on, on stderr."""
        if self.speaks:
            print_broken(self.err, "", shown(self._placed(text)), style="dim")

    def warn(self, text: str, *, even_quiet: bool = False) -> None:
        """Something the user may want to act on; ``even_quiet``: has to know, with --quiet too."""
        text = self._placed(text)
        self.warnings.append(text)
        if not ((self.quiet and not even_quiet) or is_later_rank()):
            self._say("[yellow]Warning:[/] ", text)

    def error(self, error: PtkError) -> None:
        """Two lines on stderr, or with --json one error object on stdout. A stop that was asked for is no error."""
        advice = self._placed(error.hint)
        message, hint = (" ".join(shown(text).split()) for text in (error.message, advice))
        stopped = isinstance(error, Interrupted) and error.asked_for
        self._say("" if stopped else "[bold red]Error:[/] ", message)
        if hint:
            self._say("" if stopped else "[bold]Hint:[/] ", hint)
        if self.json:  # last: stdout may be what has failed
            fields = {
                "kind": error.kind,
                "message": error.message,
                "hint": advice,
                "exit_code": error.exit_code,
            }
            self.print_json({"error": fields})

    def _say(self, mark: str, text: str) -> None:
        """A line on stderr; in a terminal it breaks between words."""
        print_broken(self.err, mark, one_line(text))


def print_broken(console: RichConsole, mark: str, text: str, indent: int = 0, style: str = "") -> None:
    """``text`` after ``mark`` (rich markup); in a terminal it breaks between words, the other lines indented."""
    if not console.is_terminal:
        console.print(f"{mark}{escape(text)}", style=style, soft_wrap=True)
        return
    before = len(Text.from_markup(mark))
    lines = break_lines(" " * max(0, before - indent) + text, console.width - indent)
    lines[0] = lines[0][max(0, before - indent) :]
    for place, line in enumerate(lines):
        console.print(f"{' ' * indent if place else mark}{escape(line)}", style=style, soft_wrap=True)


def is_later_rank() -> bool:
    """Whether this process has a rank above 0 in a distributed job: those never print results."""
    return processes.rank() > 0


def to_plain(value: Any) -> Any:
    """``value`` as JSON can hold it: dataclasses and records as objects, paths as text, infinities and NaN as null."""
    if hasattr(value, "to_json"):
        return to_plain(value.to_json())
    if hasattr(value, "model_dump"):  # a pydantic model
        return to_plain(value.model_dump())
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


def labeled(label: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    """Facts that share a label, which only the first one shows."""
    return [("" if place else label, text) for place, text in enumerate(texts)]


def shell(*words: str) -> str:
    """Words as one would type them."""
    return shlex.join(words)
