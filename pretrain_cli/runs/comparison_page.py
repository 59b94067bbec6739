"""Writes runs side by side as one HTML file: a verdict, figures, curves, samples, and the settings that differ."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.evaluation_report import PAGE
from pretrain_cli.foreign import keep_aside
from pretrain_cli.formatting import count, duration, exact, score
from pretrain_cli.refusals import writing_to
from pretrain_cli.runs.results import RunComparison, RunSummary
from pretrain_cli.storage import write_text
from pretrain_cli.webpage import charts, document, line_chart, quote, table

LOSSES = {"loss": "training loss", "validation_loss": "validation loss"}
"""Drawn by each axis; the other curves by step."""
AXES = {"step": "step", "tokens": "tokens", "elapsed_s": "time"}
TIMES = ((2 * 3600, 3600.0, "hours"), (120, 60.0, "minutes"), (0, 1.0, "seconds"))
"""From this many seconds on: the seconds of a unit, and its name."""
LABELS = {"validation_bits_per_byte": "validation, bits per byte", "grad_norm": "gradient norm"}
Lines = list[dict[str, Any]]


def write_comparison(
    page: Path, result: RunComparison, lines: Mapping[str, Lines], folders: Mapping[str, RunFolder]
) -> None:
    """Write ``page``.

    Args:
        page: the file.
        result: what it shows.
        lines: run → its lines of metrics.jsonl.
        folders: run → its folder, for the links to reports.

    Raises:
        UsageError, DiskError: it can't be written.
    """
    names = [run.name for run in result.runs]
    title = f"Runs {', '.join(names[:-1])} and {names[-1]}"
    differing = [(key, *map(_cell, values)) for key, values in result.differences.items()]
    curves = charts(_charts(result, lines))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<div class="verdict">{html.escape(result.verdict)}</div>',
        "<h2>Figures</h2>",
        table(("", *names), _figures(result.runs)),
        *(f'<p class="note">{html.escape(f"{run.name}: {run.outcome}")}</p>' for run in result.runs if run.outcome),
        *_links(page, result, folders),
        *(["<h2>Curves</h2>", curves] if curves else []),
        *_samples(result),
        "<h2>Settings that differ</h2>",
        table(("setting", *names), differing) if differing else "<p>None.</p>",
    ]
    with writing_to(page.parent):
        if told := keep_aside(page):
            result.warnings.append(told)
        write_text(page, document(title, parts))


def _charts(result: RunComparison, lines: Mapping[str, Lines]) -> Iterator[str]:
    """A chart for each metric; the losses by step, tokens and time."""
    for key, title in LOSSES.items():
        for axis, label in AXES.items():
            curves = {name: _points(own, axis, key) for name, own in lines.items()}
            unit = label
            if axis == "elapsed_s":
                curves, unit = _in_unit(curves)
            yield line_chart(f"{title} by {label}", unit, curves)
    for key, found in result.curves.items():
        if key not in LOSSES:
            yield line_chart(LABELS.get(key, key.replace("_", " ")), "step", found)


def _points(lines: Lines, axis: str, key: str) -> list[tuple[float, float]]:
    numbers = (int, float)
    return [
        (line[axis], line[key])
        for line in lines
        if isinstance(line.get(axis), numbers) and isinstance(line.get(key), numbers)
    ]


def _in_unit(curves: Mapping[str, list[tuple[float, float]]]) -> tuple[dict[str, list[tuple[float, float]]], str]:
    """Curves over seconds, with the time in the unit that suits the longest, and its name."""
    longest = max((x for points in curves.values() for x, _ in points), default=0)
    seconds, unit = next((seconds, unit) for least, seconds, unit in TIMES if longest >= least)
    return {name: [(x / seconds, y) for x, y in points] for name, points in curves.items()}, unit


def _figures(runs: list[RunSummary]) -> list[tuple[str, ...]]:
    def row(label: str, *values: str) -> tuple[str, ...]:
        return (label, *(value or "\u2013" for value in values))

    return [
        row("status", *(run.status for run in runs)),
        row("started", *(run.started[:16].replace("T", " ") for run in runs)),
        row("base", *(run.base or "from scratch" for run in runs)),
        row("steps", *(exact(run.steps) for run in runs)),
        row("planned steps", *(exact(run.planned_steps) if run.planned_steps else "" for run in runs)),
        row("tokens", *(count(run.tokens) for run in runs)),
        row("last training loss", *(score(run.train_loss, "") for run in runs)),
        row("validation loss", *(score(run.validation_loss, "") for run in runs)),
        row("bits per byte", *(score(run.bits_per_byte, "") for run in runs)),
        *(
            [row("bits per byte, evaluated", *(score(run.evaluated_bits_per_byte, "") for run in runs))]
            if any(run.evaluated_bits_per_byte is not None for run in runs)
            else []
        ),
        row("time", *("" if run.seconds is None else duration(run.seconds) for run in runs)),
    ]


def _cell(value: object) -> str:
    """A setting as config.toml writes it; numbers grouped for reading."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _samples(result: RunComparison) -> list[str]:
    found = []
    for prompt, texts in result.samples.items():
        quotes = (quote(_at(result, prompt, name), prompt, text) for name, text in texts.items())
        found.append(f'<div class="texts">{"".join(quotes)}</div>')
    return ["<h2>Samples, the last of each run</h2>", "<br>".join(found)] if found else []


def _at(result: RunComparison, prompt: str, run: str) -> str:
    """ "first, step 1,200"."""
    step = result.sample_steps.get(prompt, {}).get(run)
    return f"{run}, step {exact(step)}" if step else run


def _links(page: Path, result: RunComparison, folders: Mapping[str, RunFolder]) -> Iterator[str]:
    for run in result.runs:
        report = folders[run.name].evaluation / PAGE
        if report.is_file():
            target = os.path.relpath(report, page.parent).replace(os.sep, "/")
            yield f'<p><a href="{html.escape(target)}">Evaluation of {html.escape(run.name)}</a></p>'
        if run.wandb.startswith("http"):
            yield f'<p><a href="{html.escape(run.wandb)}">{html.escape(run.name)} in W&amp;B</a></p>'
