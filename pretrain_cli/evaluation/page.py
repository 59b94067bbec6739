"""report.html: one file that opens from disk without a network and reads well on a phone.

Charts are matplotlib's SVG, inlined: about 20 kB each and no script, where plotly's offline script alone is 4 MB.
"""

from __future__ import annotations

import html
import io
import json
import platform
from collections.abc import Iterable, Sequence
from typing import Any

from pretrain_cli.artifacts import RunFolder, read_json, write_text
from pretrain_cli.config.model import Config
from pretrain_cli.evaluation.results import Comparison, EvaluateResult, ModelScores

CURVES = ("loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second")

STYLE = """
:root{color-scheme:light dark;--line:#8884}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;
padding:1rem}h1{font-size:1.5rem}.better{color:#1a8f3c}.worse{color:#d0342c}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.3rem .6rem;text-align:right;
border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem}pre{overflow-x:auto}
.verdict{font-size:1.15rem;border-left:.3rem solid;padding-left:.8rem}small{opacity:.75}
"""


def write_page(result: EvaluateResult, run: RunFolder | None, config: Config) -> None:
    """Write ``result.page``: verdict, figures, curves, where it changed, samples, settings, machine."""
    title = f"Evaluation of {result.models[0].name}"
    lines = _metrics(run)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(_verdict(entry) for entry in result.comparison),
        "<h2>Scores</h2>",
        _scores(result.models),
        *(["<h2>Training</h2>", f'<div class="charts">{"".join(_curves(lines))}</div>'] if lines else []),
        *_by_source(result.models),
        "<h2>By position and by token frequency</h2>",
        f'<div class="charts">{"".join(_buckets(result.models))}</div>',
        *(_changed(entry) for entry in result.comparison if len(entry.changed) > 1),
        *_samples(lines),
        "<h2>Settings</h2>",
        f"<pre>{html.escape(json.dumps(result.models[0].settings, indent=2))}</pre>",
        f"<details><summary>Config</summary><pre>{html.escape(config.model_dump_json(indent=2))}</pre></details>",
        "<h2>Machine</h2>",
        f"<pre>{html.escape(_machine(run))}</pre>",
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
    )
    write_text(result.page, head + "\n".join(parts) + "</body></html>\n")


def _verdict(entry: Comparison) -> str:
    kind = entry.verdict if entry.verdict in ("better", "worse") else ""
    return f'<p class="verdict {kind}">{html.escape(entry.sentence)}</p>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _scores(models: list[ModelScores]) -> str:
    header = ("text", "model", "bits per byte", "95 % interval", "loss", "perplexity", "top-1", "top-5", "bytes")
    rows = []
    for place in range(len(models[0].texts)):
        for model in models:
            text = model.texts[place]
            low_high = text.bits_per_byte_interval
            between = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else "too little text"
            rows.append(
                (text.name, model.name, f"{text.bits_per_byte:.4f}", between, f"{text.loss:.4f}",
                 f"{text.perplexity:.2f}", f"{text.accuracy:.1%}", f"{text.accuracy_top5:.1%}", f"{text.bytes:,}")
            )  # fmt: skip
    return _table(header, rows)


def _by_source(models: list[ModelScores]) -> list[str]:
    rows = [
        (f"{text.name}: {source}", model.name, f"{bits:.4f}")
        for model in models
        for text in model.texts
        for source, bits in text.by_source.items()
    ]
    return ["<h2>By source</h2>", _table(("source", "model", "bits per byte"), rows)] if rows else []


def _changed(entry: Comparison) -> str:
    rows = [
        (f"{document.name}: {document.opening[:80]}", f"{document.second:.3f}", f"{document.first:.3f}",
         f"{document.change:+.3f}")
        for document in entry.changed
    ]  # fmt: skip
    heading = f"<h2>Most changed documents of {html.escape(entry.text)}</h2>"
    return heading + _table(("document", entry.second, entry.first, "change"), rows)


def _curves(lines: list[dict[str, Any]]) -> list[str]:
    charts = []
    for key in CURVES:
        points = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
        if points:
            charts.append(_chart(key.replace("_", " "), "step", {"": points}))
    return charts


def _buckets(models: list[ModelScores]) -> list[str]:
    charts = []
    for place, text in enumerate(models[0].texts):
        for field, label in (("by_position", "tokens before"), ("by_frequency", "times in the text")):
            curves = {
                model.name: [(row["from"], row["loss"]) for row in getattr(model.texts[place], field)]
                for model in models
            }
            charts.append(_chart(f"{text.name}: loss", f"{label}, from", curves, logarithmic=True))
    return charts


def _chart(title: str, x_label: str, curves: dict[str, list[tuple[float, float]]], logarithmic: bool = False) -> str:
    """An inline SVG that takes its text colour from the page, so that it is readable in dark mode too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(
            *zip(*points, strict=True), marker="o" if len(points) < 12 else None, markersize=3, label=name or None
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if logarithmic:
        axes.set_xscale("log")
    if any(curves):
        axes.legend(fontsize=8, frameon=False, labelcolor="#000001")
    ink = "#000001"  # replaced by currentColor below
    axes.title.set_color(ink)
    axes.xaxis.label.set_color(ink)
    axes.tick_params(colors=ink, labelsize=8)
    axes.spines[["left", "bottom"]].set_color(ink)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    return f"<figure>{svg[svg.index('<svg') :].replace(ink, 'currentColor')}</figure>"


def _samples(lines: list[dict[str, Any]]) -> list[str]:
    told = [line for line in lines if line.get("samples")]
    if not told:
        return []
    chosen = [told[0], told[-1]] if len(told) > 1 else told
    parts = [
        f"<h3>Step {line['step']}</h3>"
        f"<pre>{html.escape(json.dumps(line['samples'], indent=2, ensure_ascii=False))}</pre>"
        for line in chosen
    ]
    return ["<h2>Samples</h2>", *parts]


def _metrics(run: RunFolder | None) -> list[dict[str, Any]]:
    if run is None or not run.metrics.is_file():
        return []
    lines = []
    for line in run.metrics.read_text("utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # a kill can leave half a line
            continue
        if isinstance(value, dict) and "step" in value:
            lines.append(value)
    return lines


def _machine(run: RunFolder | None) -> str:
    import torch

    record = read_json(run.record) if run is not None and run.record.is_file() else {}
    trained = f"trained on {record.get('device', '?')} in {record.get('precision', '?')}\n" if record else ""
    return f"{trained}evaluated on {platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"
