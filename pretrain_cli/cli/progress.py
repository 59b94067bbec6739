"""How is a stage's progress drawn? A live view in a terminal, plain lines in a pipe, nothing when asked for."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, ConsoleRenderable, Group, RenderResult
from rich.control import Control
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from pretrain_cli.cli.console import Console, Stderr, is_later_rank
from pretrain_cli.formatting import byte_size, clock, count, duration, rate
from pretrain_cli.progress import SILENT, Progress

SPARKS = "▁▂▃▄▅▆▇█"
SHOWN_SAMPLES = 3
"""Texts written during training that stand under the bars, two lines each at most."""
PLAIN_INTERVAL_S = 1.0
"""Plain log lines are at least this far apart, unless logging_steps was chosen: a run may log each step."""
STAGE_INTERVAL_S = 10.0
"""A long stage says in a pipe this often how far it is."""
REFRESHES = 4
"""A second; drawing takes 2.5 ms of a core on which the training may be."""
SPARK_CELLS = 16
MOST_LOSSES = 1024
"""That the sparkline is drawn from."""
FIGURES = ("loss", "validation_loss", "validation_bits_per_byte", "learning_rate", "grad_norm", "epoch")
"""In this order; what else a run logs comes after them."""
HIDDEN = ("step", "tokens", "elapsed_s", "grad_norm_clipped")
LABELS = {
    "learning_rate": "lr", "validation_loss": "validation", "validation_bits_per_byte": "bits/byte",
    "grad_norm": "grad norm", "mfu": "MFU", "memory_mb": "memory", "skipped_steps": "skipped steps",
}  # fmt: skip
COMMAND = re.compile(r": (ptk|wandb|pip) \S")
"""A line that ends in a command is broken by the terminal alone, so that it is copied whole."""


def make_progress(console: Console, every_line: bool = False) -> Progress:
    """The receiver that fits: silent for --quiet and for later ranks, live in a terminal, else plain lines.

    Args:
        console: the command's sink.
        every_line: show each logged step in a pipe, however fast they come.
    """
    if console.quiet or is_later_rank():
        return SILENT
    if console.plain or not sys.stderr.isatty():
        return PlainProgress(every_line)
    return LiveProgress(console.err)


class PlainProgress(Progress):
    """One line for what matters, ``key=value`` for steps: made for logs and for grep."""

    def __init__(self, every_line: bool = False) -> None:
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
        of = f" of {amount(self._total, self._unit)}" if self._total else ""
        words = [
            f"{self._name}: {amount(completed, self._unit)}{of}",
            *(_pair(key, value) for key, value in facts.items()),
        ]
        self._print(" ".join(words))

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
        self._print(f"Warning: {text}")

    def status(self, name: str, text: str, said: bool = False) -> None:
        if not said:
            self._print(f"{name}: {text}")

    def sample(self, prompt: str, text: str, step: int) -> None:
        self._print(f"step={step} sample: {prompt!r} -> {text!r}")

    @staticmethod
    def _print(line: str) -> None:
        print(line, file=cast(IO[str], Stderr()), flush=True)


class LiveProgress(Progress):
    """The live view of a terminal: a bar for the stage, the training figures under it, notes above it."""

    def __init__(self, console: RichConsole) -> None:
        self._console = console
        self._view = StageView()
        self._live: Live | None = None

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._close()
        self._view.start(name, total, unit)
        self._live = SteadyLive(self._view, console=self._console, transient=True, refresh_per_second=REFRESHES)
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
        self._say("[yellow]Warning:[/]", text)

    def _say(self, mark: str, text: str) -> None:
        if COMMAND.search(text):
            self._console.print(f"{mark} {escape(text)}", soft_wrap=True)
            return
        line = Table.grid(padding=(0, 1))
        line.add_row(mark, escape(text))
        self._console.print(line)

    def status(self, name: str, text: str, said: bool = False) -> None:
        self._view.states[name] = text
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


class SteadyLive(Live):
    """A Live that clears its last frame also where the terminal has become narrower since, and has broken its lines."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Go up by the lines that were added, before what is shown is cleared and drawn again."""
        view, width = self.get_renderable(), self.console.width
        lengths = view.lengths if isinstance(view, StageView) else []
        added = sum(max(0, -(-length // width) - 1) for length in lengths)
        up = (ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(*up * added), *super().process_renderables(renderables)]


class StageView:
    """The live view's content, drawn anew at each refresh at the width the terminal has then."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        """Cells of each line drawn last."""
        self.states: dict[str, str] = {}
        self.samples: dict[str, tuple[str, int]] = {}
        """Prompt -> the newest text that goes on from it, and its step."""
        self.start("", None, "")

    def start(self, name: str, total: float | None, unit: str) -> None:
        """Another stage: its bar begins at 0."""
        self.name, self.total, self.unit = name, total, unit
        self.completed = 0.0
        self.facts: dict[str, float | str] = {}
        self.values: dict[str, float] = {}
        self.losses: list[float] = []
        """For the sparkline: each of them, or in a long run every 2nd, 4th, ..."""
        self._seen, self._every = 0, 1
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the newest of each value, and the losses for the sparkline."""
        self.values.update({key: value for key, value in values.items() if value is not None})
        if values.get("loss") is not None:
            self._seen += 1
            self.losses += [values["loss"]] if self._seen % self._every == 0 else []
            if len(self.losses) > MOST_LOSSES:
                self.losses, self._every = self.losses[1::2], 2 * self._every

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Group(*self._parts(options.max_width)), options, pad=False)
        self.lengths = [Segment.get_line_length(line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def _parts(self, width: int) -> Iterator[Table | Text]:
        yield self._bar(width)
        if budget := self.facts.get("budget_s"):
            yield self._time_bar(width, float(budget))
        if self.values or self.states:
            yield from self._figures(width)
        for prompt, (text, step) in list(self.samples.items())[:SHOWN_SAMPLES]:
            line = Text.assemble((f"step {step}: ", "dim"), (prompt, "bold"), text.replace("\n", " "))
            line.truncate(width * 2 - 2, overflow="ellipsis")
            yield line

    def _bar(self, width: int) -> Table:
        return bar_line(self.name, self.completed, self.total, "  ".join(self._beside(width)), width)

    def _time_bar(self, width: int, budget_s: float) -> Table:
        """The budget of a run that steps may end earlier."""
        used = min(budget_s, float(self.facts.get("elapsed_s", self.elapsed_s)))
        return bar_line("time".ljust(len(self.name)), used, budget_s, f"{clock(used)} of {clock(budget_s)}", width)

    def _beside(self, width: int) -> Iterator[str]:
        if self.total and self.unit != "seconds":
            of = f"{self.completed:.0f}/{self.total:.0f}" if self.unit in ("steps", "") else ""
            yield of or f"{amount(self.completed, self.unit)} of {amount(self.total, self.unit)}"
        elif self.completed and self.unit != "seconds":
            yield amount(self.completed, self.unit)
        if self.unit == "bytes" and self.completed:
            yield rate(self.completed / max(self.elapsed_s, 1e-3), "bytes")
        shown = 0
        for key, value in self.facts.items():
            if (
                key in ("megabytes_per_second", "eta_s", "elapsed_s", "budget_s")
                or key in self.values
                or shown >= (width - 60) // 20
            ):
                continue
            shown += 1
            yield value if isinstance(value, str) else f"{readable(value)} {label(key)}"
        left = self._left_s()
        yield f"{clock(left)} left" if left is not None else clock(self.elapsed_s)

    def _left_s(self) -> float | None:
        if isinstance(self.facts.get("eta_s"), (int, float)):
            return float(self.facts["eta_s"])
        if not self.total or self.completed <= 0:
            return None
        return self.elapsed_s * (self.total - min(self.completed, self.total)) / self.completed

    def _figures(self, width: int) -> Iterator[Text]:
        shown: list[Text] = []
        if "loss" in self.values:
            spark = sparkline(self.losses, SPARK_CELLS).ljust(SPARK_CELLS)
            shown.append(Text.assemble(_figure("loss", self.values["loss"]), " ", (spark, "cyan")))
        shown.extend(
            _figure(key, self.values[key]) for key in sorted(self.values, key=_place) if key not in ("loss", *HIDDEN)
        )
        yield from lines_of(shown, width)
        states = [Text.assemble((f"{name} ", "dim"), (text, "magenta")) for name, text in list(self.states.items())]
        yield from lines_of(states, width)


def lines_of(parts: list[Text], width: int) -> Iterator[Text]:
    """As many parts in a line as fit into ``width``."""
    line = Text()
    for part in parts:
        if line and line.cell_len + part.cell_len + 3 > width:
            yield line
            line = Text()
        line = Text.assemble(line, "   " if line else "", part)
    if line:
        line.truncate(width, overflow="ellipsis")
        yield line


def bar_line(name: str, completed: float, total: float | None, beside: str, width: int) -> Table:
    """A name, a bar where ``total`` is known and there is room, and what stands beside it."""
    text = Text(beside, no_wrap=True, overflow="ellipsis")
    cells: list[Any] = [Text(name, style="bold", no_wrap=True)]
    if total and (room := width - len(name) - text.cell_len - 2) > 3:
        cells.append(ProgressBar(total=total, completed=min(completed, total), width=room))
    table = Table.grid(padding=(0, 1))
    table.add_row(*cells, text)
    return table


def sparkline(values: list[float], width: int) -> str:
    """The course of ``values`` in ``width`` characters, each the mean of its share."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite:
        return ""
    width = min(width, len(finite))
    edges = [round(index * len(finite) / width) for index in range(width + 1)]
    means = [sum(finite[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * scale)] for mean in means)


def label(key: str) -> str:
    """A metric's key in words: tokens_per_second → "tokens/s"."""
    return LABELS.get(key, key.replace("_per_second", "/s").replace("_", " "))


def _place(key: str) -> int:
    return FIGURES.index(key) if key in FIGURES else len(FIGURES)


def _figure(key: str, value: float) -> Text:
    """A metric's label and value, as wide as its usual values, so that what stands beside it doesn't move."""
    if key in ("loss", "validation_loss", "validation_bits_per_byte"):
        text = f"{value:.3f}"
    elif key == "mfu":
        text = f"{value:.1%}"
    elif key == "memory_mb":
        text = byte_size(value * 1e6)
    else:
        text = readable(value)
    return Text.assemble((f"{label(key)} ", "dim"), (text.ljust(6), "bold" if key == "loss" else ""))


def readable(value: float) -> str:
    """A number at the precision a person reads."""
    if isinstance(value, str):
        return value
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else count(value)


def amount(value: float | None, unit: str) -> str:
    """A quantity with its unit: "12.3 MB", "1 204 rows", "0:42"."""
    if value is None:
        return ""
    if unit == "bytes":
        return byte_size(value)
    return clock(value) if unit == "seconds" else f"{count(value)} {unit}".strip()


def _pair(key: str, value: float | str) -> str:
    if isinstance(value, float):
        return f"{key}={value:.0f}" if abs(value) >= 100 else f"{key}={value:.4g}"
    return f"{key}={value}"
