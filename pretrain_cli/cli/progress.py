"""Shows the progress of a command: a live view in a terminal, plain lines in a pipe, nothing with --quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, cast

from rich.console import Console as RichConsole
from rich.live import Live
from rich.markup import escape

from pretrain_cli.cli.console import Console, is_later_rank, print_broken
from pretrain_cli.cli.stage_view import StageView, SteadyLive, amount, share
from pretrain_cli.cli.streams import Stderr
from pretrain_cli.cli.visible import one_line
from pretrain_cli.formatting import duration
from pretrain_cli.progress import SILENT, Progress

PLAIN_INTERVAL_S = 1.0
"""Plain log lines are at least this far apart, unless logging_steps was set: a run may log each step."""
STAGE_INTERVAL_S = 10.0
"""In a pipe, a long stage reports its progress this often."""
REFRESHES_PER_SECOND = 4
"""Drawing takes 2.5 ms of a core that training may be using."""


def make_progress(console: Console, every_line: bool = False) -> Progress:
    """The progress that fits: silent for --quiet and for later ranks, live in a terminal, else plain lines.

    Args:
        console: the command's output.
        every_line: show each logged step in a pipe, however fast they come.
    """
    if is_later_rank():
        return SILENT
    if console.quiet:
        return QuietProgress(console.warnings)
    if console.plain or not sys.stderr.isatty():
        return PlainProgress(every_line, console.warnings)
    return LiveProgress(console.err, console.warnings)


class QuietProgress(Progress):
    """Shows nothing, and keeps the warnings.

    Args:
        warnings: receives them.
    """

    def __init__(self, warnings: list[str] | None = None) -> None:
        self._warnings = warnings if warnings is not None else []

    def warn(self, text: str) -> None:
        self._warnings.append(text)


class PlainProgress(QuietProgress):
    """One line for each event, ``key=value`` for steps: made for logs and for grep."""

    def __init__(self, every_line: bool = False, warnings: list[str] | None = None) -> None:
        super().__init__(warnings)
        self._every_line = every_line
        self._name, self._unit = "", ""
        self._total: float | None = None
        self._started = self._said = 0.0
        self._logged = float("-inf")

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._started = self._said = time.monotonic()
        self._print(f"{name}: {amount(total, unit)}" if total is not None else name)

    def advance(self, completed: float, **facts: float | str) -> None:
        now = time.monotonic()
        if now - self._said < STAGE_INTERVAL_S or self._unit == "steps":
            return
        self._said = now
        pairs = (_pair(key, value) for key, value in facts.items())
        self._print(" ".join([f"{self._name}: {share(completed, self._total, self._unit)}", *pairs]))

    def end_stage(self) -> None:
        if self._name:
            self._print(f"{self._name}: done in {duration(time.monotonic() - self._started)}")
        self._name = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._logged < PLAIN_INTERVAL_S and not self._every_line and "validation_loss" not in values:
            return
        self._logged = now
        pairs = (_pair(key, value) for key, value in values.items() if key != "step" and value is not None)
        self._print(f"step={step} " + " ".join(pairs))

    def note(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        super().warn(text)
        self._print(f"Warning: {text}")

    def status(self, name: str, text: str, said: bool = False) -> None:
        if not said:
            self._print(f"{name}: {text}")

    def sample(self, prompt: str, text: str, step: int) -> None:
        self._print(f"step={step} sample: {prompt!r} -> {text!r}")

    @staticmethod
    def _print(line: str) -> None:
        print(one_line(line), file=cast(IO[str], Stderr()), flush=True)


class LiveProgress(QuietProgress):
    """The live view of a terminal: a bar for the stage, the training figures under it, notes above it."""

    def __init__(self, console: RichConsole, warnings: list[str] | None = None) -> None:
        super().__init__(warnings)
        self._console = console
        self._view = StageView()
        self._live: Live | None = None

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._close()
        self._view.start(one_line(name), total, unit)
        self._live = SteadyLive(
            self._view, console=self._console, transient=True, refresh_per_second=REFRESHES_PER_SECOND
        )
        self._live.start()

    def advance(self, completed: float, **facts: float | str) -> None:
        self._view.completed = completed
        self._view.facts.update(facts)

    def end_stage(self) -> None:
        name, seconds = self._view.name, self._view.elapsed_s
        self._close()
        if name:
            self._console.print(f"[green]✓[/] {escape(name)} [dim]{duration(seconds)}[/]")
        self._view.name = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._view.log(step, values)

    def note(self, text: str) -> None:
        self._say("[dim]·[/]", text)

    def warn(self, text: str) -> None:
        super().warn(text)
        self._say("[yellow]Warning:[/]", text)

    def _say(self, mark: str, text: str) -> None:
        print_broken(self._console, f"{mark} ", one_line(text), indent=len("· "))

    def status(self, name: str, text: str, said: bool = False) -> None:
        self._view.states[name] = one_line(text)
        if not text:
            del self._view.states[name]
        elif self._live is None and not said:
            self.note(f"{name}: {text}")

    def sample(self, prompt: str, text: str, step: int) -> None:
        self._view.samples[prompt] = (text, step)

    def close(self) -> None:
        """Leave the terminal as it was, however the command ends."""
        self._close()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _pair(key: str, value: float | str) -> str:
    if isinstance(value, float):
        return f"{key}={value:.0f}" if abs(value) >= 100 else f"{key}={value:.4g}"
    return f"{key}={value}"
