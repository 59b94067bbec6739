"""Shows progress in a notebook: one bar that is drawn anew in its place, and the lines that are worth keeping."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping

from pretrain_cli.formatting import duration, exact, score
from pretrain_cli.progress import SILENT, Progress

SECONDS_BETWEEN_DRAWINGS = 0.25
SHOWN_LINES = 8
"""Notes and warnings that stay visible; the others fold away."""


def progress_here() -> Progress:
    """A bar in a notebook, nothing in a script."""
    return NotebookProgress() if in_notebook() else SILENT


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter: a cell shows HTML."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


class NotebookProgress(Progress):
    """One cell's output: the stage with its bar, then notes, warnings, samples and lasting states.

    Needs no widgets: a bar is HTML that replaces itself, and the last state is saved with the notebook.
    """

    def __init__(self) -> None:
        self._stage, self._unit = "", ""
        self._total: float | None = None
        self._completed = 0.0
        self._facts: dict[str, float | str] = {}
        self._lines: list[str] = []
        self._states: dict[str, str] = {}
        self._began = self._drawn = 0.0
        self._cell: object = None

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._stage, self._total, self._unit = name, total, unit
        self._completed, self._facts, self._began = 0.0, {}, time.monotonic()
        self._draw()

    def advance(self, completed: float, **facts: float | str) -> None:
        self._completed, self._facts = completed, self._facts | facts
        if time.monotonic() - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def end_stage(self) -> None:
        self._lines.append(f"{html.escape(self._stage)}: {duration(time.monotonic() - self._began)}")
        self._stage = ""
        self._draw()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._facts |= {name: values[name] for name in ("loss", "validation_loss") if name in values}

    def note(self, text: str) -> None:
        self._lines.append(html.escape(text))
        self._draw()

    def warn(self, text: str) -> None:
        self._lines.append(f"<b>Warning:</b> {html.escape(text)}")
        self._draw()

    def status(self, name: str, text: str, said: bool = False) -> None:
        self._states[name] = text
        self._draw()

    def sample(self, prompt: str, text: str, step: int) -> None:
        self._lines.append(f"step {exact(step)}: <i>{html.escape(prompt)}</i>{html.escape(text)}")
        self._draw()

    def page(self) -> str:
        """What the cell shows now."""
        parts = [self._bar()] if self._stage else []
        states = [f"{name}: {text}" for name, text in self._states.items() if text]
        parts += [f"<div><small>{html.escape(' · '.join(states))}</small></div>"] if states else []
        earlier, last = self._lines[:-SHOWN_LINES], self._lines[-SHOWN_LINES:]
        if earlier:
            folded = "<br>".join(earlier)
            parts.append(f"<details><summary>{exact(len(earlier))} earlier</summary>{folded}</details>")
        return "".join(parts) + f"<div><small>{'<br>'.join(last)}</small></div>"

    def _bar(self) -> str:
        told = [f"{name.replace('_', ' ')} {_figure(value)}" for name, value in self._facts.items()]
        if self._total:
            unit = f" {self._unit}" if self._unit else ""
            told.insert(0, f"{exact(round(self._completed))} of {exact(round(self._total))}{unit}")
        value = f'value="{self._completed}" max="{self._total}"' if self._total else ""
        return f"<div><progress {value}></progress> {html.escape(' · '.join([self._stage, *told]))}</div>"

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        shown = HTML(self.page())
        if self._cell is None:
            self._cell = display(shown, display_id=True)
        else:
            self._cell.update(shown)  # type: ignore[attr-defined]


def _figure(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return score(value) if abs(value) < 100 else exact(round(value))
