"""Draws the live view in a terminal: a bar for the stage, training figures, states and samples."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from pretrain_cli.formatting import byte_size, clock, count, count_of, exact, rate

SPARKS = "▁▂▃▄▅▆▇█"
SHOWN_SAMPLES = 3
"""Texts written during training that are shown under the bars, at most two lines each."""
SPARK_CELLS = 16
MOST_LOSSES = 1024
"""The sparkline is drawn from at most this many losses."""
FIGURES = ("loss", "validation_loss", "validation_bits_per_byte", "learning_rate", "grad_norm", "epoch")
"""Shown first, in this order."""
HIDDEN = ("step", "tokens", "elapsed_s", "grad_norm_clipped")
LABELS = {
    "learning_rate": "lr", "validation_loss": "validation", "validation_bits_per_byte": "bits/byte",
    "grad_norm": "grad norm", "mfu": "MFU", "matmul_share": "of matmul", "memory_mb": "memory",
    "skipped_steps": "skipped steps",
}  # fmt: skip


class SteadyLive(Live):
    """A Live that clears its last frame even if the terminal has become narrower since and has wrapped its lines."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Go up by the lines that wrapping added, before the frame is cleared and drawn again."""
        view, width = self.get_renderable(), self.console.width
        lengths = view.lengths if isinstance(view, StageView) else []
        added = sum(max(0, -(-length // width) - 1) for length in lengths)
        up = (ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(*up * added), *super().process_renderables(renderables)]


class StageView:
    """The content of the live view, drawn again at each refresh at the terminal's current width."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        """Width in cells of each line of the last frame."""
        self.states: dict[str, str] = {}
        self.samples: dict[str, tuple[str, int]] = {}
        """Prompt → the newest text that continues it, and its step."""
        self.start("", None, "")

    def start(self, name: str, total: float | None, unit: str) -> None:
        """Start another stage: its bar begins at 0."""
        self.name, self.total, self.unit = name, total, unit
        self.completed = 0.0
        self.facts: dict[str, float | str] = {}
        self.values: dict[str, float] = {}
        self.losses: list[float] = []
        """For the sparkline: every loss, or in a long run every 2nd, 4th, …"""
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
        """The time budget of a run that steps may end earlier."""
        used = min(budget_s, float(self.facts.get("elapsed_s", self.elapsed_s)))
        return bar_line("time".ljust(len(self.name)), used, budget_s, f"{clock(used)} of {clock(budget_s)}", width)

    def _beside(self, width: int) -> Iterator[str]:
        if self.total and self.unit != "seconds":
            of = f"{exact(self.completed)}/{exact(self.total)}" if self.unit in ("steps", "") else ""
            yield of or share(self.completed, self.total, self.unit)
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
    """Lines of ``width`` columns, each with as many parts as fit."""
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
    """A name, a bar if ``total`` is known and there is room, and the text next to it."""
    text = Text(beside, no_wrap=True, overflow="ellipsis")
    cells: list[RenderableType] = [Text(name, style="bold", no_wrap=True)]
    if total and (room := width - len(name) - text.cell_len - 2) > 3:
        cells.append(ProgressBar(total=total, completed=min(completed, total), width=room))
    table = Table.grid(padding=(0, 1))
    table.add_row(*cells, text)
    return table


def sparkline(values: list[float], width: int) -> str:
    """The curve of ``values`` in ``width`` characters, each the mean of its share."""
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
    """A metric's label and value, as wide as its usual values, so that what follows it doesn't move."""
    if key in ("loss", "validation_loss", "validation_bits_per_byte"):
        text = f"{value:.3f}"
    elif key in ("mfu", "matmul_share"):
        text = f"{value:.1%}"
    elif key == "memory_mb":
        text = byte_size(value * 1e6)
    else:
        text = readable(value)
    return Text.assemble((f"{label(key)} ", "dim"), (text.ljust(6), "bold" if key == "loss" else ""))


def readable(value: float) -> str:
    """A number at the precision a person reads."""
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else count(value)


def amount(value: float | None, unit: str) -> str:
    """A quantity with its unit, a plural: "12.3 MB", "1,204 rows", "1 row", "0:42"."""
    if value is None:
        return ""
    if unit == "bytes":
        return byte_size(value)
    if unit == "seconds":
        return clock(value)
    return count_of(value, unit.removesuffix("s")) if unit else count(value)


def share(completed: float, total: float | None, unit: str) -> str:
    """How much is completed: "12.3 MB of 40 MB", "1 of 80 tokens", or without a total "1,204 rows"."""
    if not total:
        return amount(completed, unit)
    done = count(completed) if unit not in ("bytes", "seconds") else amount(completed, unit)
    return f"{done} of {amount(total, unit)}"
