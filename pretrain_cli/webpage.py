"""Writes figures, tables and curves as one HTML file that opens from disk, without network or scripts.

Charts are matplotlib's SVG, inlined: about 10 kB each, while plotly's offline script alone is 4 MB. Their text stays
text, in the page's own font and color, so that it can be read on a phone and in dark mode.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pretrain_cli.drawing import plain_style
from pretrain_cli.sealing import open_seal, sealed

COLORS = ("#2f7ed8", "#e0851b", "#3aa35a", "#b04fc4", "#d0443c", "#7a8290")
STYLES = ("-", "--", ":", "-.")
"""Of lines, once all colors are taken."""
LEGEND_INSIDE = 4
"""Curves up to which the legend has room in the chart; more get it below."""
INK = "#000001"
"""Replaced by the text color of the page."""

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--better:#1a8f3c;--worse:#d0342c}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;max-width:76rem;margin:auto;
padding:1rem;overflow-wrap:break-word}
h1{font-size:1.45rem;line-height:1.25;margin:.2rem 0 1rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}p{margin:.4rem 0}small,.note{opacity:.72;font-size:.85rem}
.verdicts{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:.8rem}
.verdict{border:1px solid var(--line);border-left:.4rem solid #8888;border-radius:.4rem;padding:.6rem .8rem}
.verdict b{display:block;font-size:1.1rem}.verdict.better{border-left-color:var(--better)}
.verdict.worse{border-left-color:var(--worse)}.better b{color:var(--better)}
.worse b{color:var(--worse)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;table-layout:auto}
table{font-size:.9rem;font-variant-numeric:tabular-nums}
td,th{padding:.3rem .5rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600}td:first-child,th:first-child{text-align:left}
tr.group th{text-align:left;background:var(--soft)}td small{display:block;overflow-wrap:anywhere}
table.facts td{text-align:left}table.facts td:first-child{opacity:.72;white-space:nowrap;width:1%}
.charts{margin:.8rem 0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr));gap:.8rem}
figure{margin:0}svg{display:block;width:100%;height:auto}
.texts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:.8rem}
blockquote{margin:0;padding:.5rem .8rem;background:var(--soft);border-radius:.4rem;white-space:pre-wrap}
blockquote cite{display:block;font-style:normal;opacity:.72;font-size:.85rem}blockquote mark{background:none;
color:inherit;opacity:.6}
pre{overflow-x:auto;background:var(--soft);padding:.6rem;border-radius:.4rem;font-size:.85rem}
summary{cursor:pointer;margin:.6rem 0}
@media(max-width:30rem){body{padding:.8rem}table{font-size:.8rem}td,th{padding:.25rem}td small{font-size:.72rem}}
"""

Curve = Sequence[tuple[float, float]]
Cell = str | tuple[str, str]
"""A cell of a table: its text, or its text and a smaller line below it."""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page, with the hash of its own text."""
    head = (
        f'<!doctype html>\n{open_seal("<!-- ", " -->")}<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
    )
    return sealed(head + "\n".join(parts) + "\n</body></html>\n")


def fragment(parts: Iterable[str]) -> str:
    """The same for a notebook's cell: its style is for this fragment alone."""
    style = re.sub(r"(?m)^:root|^body", "&", STYLE)
    return f'<style>.ptk-page{{{style}}}</style><div class="ptk-page">{"".join(parts)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell] | str]) -> str:
    """A table that scrolls where it is wider than the page; a row that is one string is the heading of a group."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = []
    for row in rows:
        if isinstance(row, str):
            body.append(f'<tr class="group"><th colspan="{len(header)}">{html.escape(row)}</th></tr>')
        else:
            body.append("<tr>" + "".join(map(_cell, row)) + "</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def facts(values: Mapping[str, object]) -> str:
    """Names and values, one pair a row."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>" for name, value in values.items()
    )
    return f'<table class="facts">{rows}</table>'


def quote(who: str, prompt: str, text: str) -> str:
    """What a model wrote after a prompt."""
    told = f"<mark>{html.escape(prompt)}</mark>{html.escape(text)}"
    return f"<blockquote><cite>{html.escape(who)}</cite>{told}</blockquote>"


def charts(figures: Iterable[str]) -> str:
    """Charts side by side; on a phone, one above the other."""
    found = list(filter(None, figures))
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def line_chart(title: str, x_label: str, curves: Mapping[str, Curve], *, logarithmic: bool = False) -> str:
    """Curves of (x, y) by name in one chart; a single curve needs no name. ``logarithmic`` is about the x axis.

    Empty where no curve has two points.
    """
    curves = {name: points for name, points in curves.items() if points}
    if all(len(points) < 2 for points in curves.values()):
        return ""
    return _line_chart(title, x_label, curves, logarithmic)


@plain_style()
def _line_chart(title: str, x_label: str, curves: Mapping[str, Curve], logarithmic: bool) -> str:
    rows = 0 if len(curves) <= LEGEND_INSIDE else -(-len(curves) // 2)
    figure, axes = _axes(title, height=2.6 + 0.17 * rows)
    for place, (name, points) in enumerate(curves.items()):
        few = len(points) < 12
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=COLORS[place % len(COLORS)],
            linestyle=STYLES[place // len(COLORS) % len(STYLES)],
            linewidth=1.6,
            marker="o" if few else None,
            markersize=3.5,
            label=_drawn(name) or None,
        )
    axes.set_xlabel(_drawn(x_label), fontsize=9, color=INK)
    if logarithmic:
        axes.set_xscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, place: f"{value:,g}")
    if any(curves) and rows:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelcolor=INK)
    elif any(curves):
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    return _svg(figure, title)


@plain_style()
def interval_chart(title: str, x_label: str, values: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """Points with their intervals, as (value, low, high) by row and, within a row, by name."""
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    figure, axes = _axes(title, height=1.1 + 0.32 * sum(map(len, values.values())))
    place, ticks = 0.0, []
    for row in values.values():
        first = place
        for name, (value, low, high) in row.items():
            color = _colors(len(names))[names.index(name)]
            known = low == low and high == high
            error = [[max(0.0, value - low)], [max(0.0, high - value)]] if known else None
            seen = _drawn(name) in [drawn.get_label() for drawn in axes.containers]
            axes.errorbar(
                [value], [place], xerr=error, fmt="o", color=color, markersize=5, capsize=3,
                label="_" + _drawn(name) if seen else _drawn(name),
            )  # fmt: skip
            place += 1
        ticks.append((first + place - 1) / 2)
        place += 0.6
    axes.set_yticks(ticks, list(map(_drawn, values)))
    axes.invert_yaxis()
    axes.margins(y=0.12)
    axes.set_xlabel(_drawn(x_label), fontsize=9, color=INK)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelcolor=INK)
    return _svg(figure, title)


def _axes(title: str, height: float = 2.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_drawn(title), fontsize=10, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color="#888888", alpha=0.2, linewidth=0.6)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """The figure's SVG, its words as text in the page's font and color."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": _drawn(title), "font.family": "DejaVu Sans"}):
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = file.getvalue()
    svg = re.sub(r"font-family:[^;\"]*", "font-family:inherit", svg[svg.index("<svg") :].replace(INK, "currentColor"))
    return f'<figure role="img" aria-label="{html.escape(title)}">{svg}</figure>'


def _drawn(name: str) -> str:
    """A name as matplotlib draws it: "$" begins no formula, and what has no glyph is spelled."""
    spelled = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
    return spelled.replace("$", r"\$")


def _colors(count: int) -> list[str]:
    return [COLORS[place % len(COLORS)] for place in range(count)]


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        return f"<td>{html.escape(cell[0])}<small>{html.escape(cell[1])}</small></td>"
    return f"<td>{html.escape(cell)}</td>"
