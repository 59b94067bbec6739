"""Compares two runs: the settings that differ, and their curves."""

from __future__ import annotations

from typing import Any

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.run_record import read_run_config
from pretrain_cli.runs.comparison_page import write_comparison
from pretrain_cli.runs.results import RunComparison
from pretrain_cli.runs.summary import curve, summarize_run
from pretrain_cli.storage import read_lines

CURVES = ("loss", "validation_loss", "validation_bits_per_byte", "learning_rate", "grad_norm", "tokens_per_second")


def compare_runs(artifacts: Artifacts, first: str, second: str) -> RunComparison:
    """How two runs differ in config and in their curves; writes the HTML page too.

    Raises:
        ModelError: there is no such run.
    """
    runs = [artifacts.existing_run(name) for name in (first, second)]
    one, two = (_flat(read_run_config(run)) for run in runs)
    keys = sorted(set(one) | set(two))
    lines = {run.name: read_lines(run.metrics) for run in runs}
    found = {key: {name: curve(own, key) for name, own in lines.items() if curve(own, key)} for key in CURVES}
    result = RunComparison(
        first=summarize_run(runs[0]),
        second=summarize_run(runs[1]),
        differences={key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)},
        curves={key: curves for key, curves in found.items() if curves},
        page=artifacts.comparison(runs[0].name, runs[1].name),
    )
    write_comparison(result)
    return result


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
