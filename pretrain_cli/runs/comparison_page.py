"""Writes two runs side by side as one HTML file: figures, curves, and the settings that differ."""

from __future__ import annotations

import html

from pretrain_cli.formatting import duration
from pretrain_cli.runs.results import RunComparison, RunSummary
from pretrain_cli.storage import write_text
from pretrain_cli.webpage import charts, document, line_chart, table

LABELS = {"grad_norm": "gradient norm"}


def write_comparison(result: RunComparison) -> None:
    """Write ``result.page``."""
    names = (result.first.name, result.second.name)
    title = f"{names[0]} and {names[1]}"
    figures = [
        line_chart(LABELS.get(key, key.replace("_", " ")), "step", curves) for key, curves in result.curves.items()
    ]
    differing = [(key, _cell(one), _cell(other)) for key, (one, other) in result.differences.items()]
    parts = [
        f"<h1>Runs {html.escape(title)}</h1>",
        table(("", *names), _figures(result.first, result.second)),
        *(["<h2>Curves</h2>", charts(figures)] if figures else []),
        "<h2>Settings that differ</h2>",
        table(("setting", *names), differing) if differing else "<p>None.</p>",
        *_links(result),
    ]
    write_text(result.page, document(title, parts))


def _figures(first: RunSummary, second: RunSummary) -> list[tuple[str, str, str]]:
    def row(label: str, one: object, other: object) -> tuple[str, str, str]:
        return (label, _cell(one), _cell(other))

    return [
        row("status", first.status, second.status),
        row("started", first.started.replace("T", " "), second.started.replace("T", " ")),
        row("base", first.base or "from scratch", second.base or "from scratch"),
        row("steps", first.steps, second.steps),
        row("tokens", first.tokens, second.tokens),
        row("loss", first.loss, second.loss),
        row("bits per byte", first.bits_per_byte, second.bits_per_byte),
        row("time", *(None if run.seconds is None else duration(run.seconds) for run in (first, second))),
    ]


def _cell(value: object) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _links(result: RunComparison) -> list[str]:
    linked = [run for run in (result.first, result.second) if run.wandb.startswith("http")]
    return [f'<p><a href="{html.escape(run.wandb)}">{html.escape(run.name)} in W&amp;B</a></p>' for run in linked]
