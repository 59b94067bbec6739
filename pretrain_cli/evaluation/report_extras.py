"""Writes the parts of a report that are there only where they were asked for: the line from base to run, and chat."""

from __future__ import annotations

import html

from pretrain_cli.evaluation.results import BlendLine, ChatResult
from pretrain_cli.webpage import charts, line_chart, quote, table


def line_section(line: BlendLine | None) -> str:
    """Gain against forgetting, from base to run; empty where no points were asked for."""
    if line is None:
        return ""
    rows = [
        (_weight(point.weight, line.best), f"{point.gain:+.4f}", f"{point.forgotten:+.4f}") for point in line.points
    ]
    header = ("weight of the run", f"gained on {line.text}", "forgotten of general English")
    curve = {"": [(point.forgotten, point.gain) for point in line.points]}
    chart = line_chart(f"bits per byte gained on {line.text}", "bits per byte forgotten of general English", curve)
    return table(header, rows) + f'<p class="note">{html.escape(line.sentence)}</p>' + charts([chart])


def _weight(weight: float, best: float) -> str:
    return f"{weight:g} (best)" if weight == best else f"{weight:g}"


def chat_section(chat: ChatResult | None) -> str:
    """What is left of a base that chats; empty where that wasn't asked for."""
    if chat is None:
        return ""
    rows = []
    for scores in reversed(chat.models):
        low, high = scores.bits_per_byte_interval
        followed = f"{scores.followed} of {scores.instructions}"
        share = f"{scores.share_interval[0]:.0%} to {scores.share_interval[1]:.0%}"
        rows.append((scores.name, (followed, share), (f"{scores.bits_per_byte:.4f}", f"{low:.4f} to {high:.4f}")))
    header = ("model", "instructions followed", f"bits per byte of {chat.reference}'s answers")
    parts = [table(header, rows)]
    for place, shown in enumerate(chat.models[-1].answers):
        said = [(scores.name, scores.answers[place]["answer"]) for scores in reversed(chat.models)]
        quotes = "".join(quote(name, shown["prompt"] + " ", answer) for name, answer in said)
        parts.append(f'<div class="texts">{quotes}</div>')
    return "\n".join(parts)
