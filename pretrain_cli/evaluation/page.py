"""report.html: one file that opens from disk without a network and reads well on a phone."""

from __future__ import annotations

import html

from pretrain_cli.artifacts import RunFolder, write_text
from pretrain_cli.config.model import Config
from pretrain_cli.evaluation.results import EvaluateResult


def write_page(result: EvaluateResult, run: RunFolder | None, config: Config) -> None:
    """Write ``result.page``."""
    rows = "".join(f"<li>{html.escape(entry.sentence)}</li>" for entry in result.comparison)
    write_text(result.page, f"<!doctype html><meta charset=utf-8><ul>{rows}</ul>")
