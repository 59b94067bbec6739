"""Compares runs: which is best, the settings that differ, their curves, and what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import score
from pretrain_cli.run_record import read_run_config
from pretrain_cli.runs.comparison_page import write_comparison
from pretrain_cli.runs.ranking import HELD_OUT, by_data, rank
from pretrain_cli.runs.results import RunComparison, RunSummary
from pretrain_cli.runs.summary import curve, summarize_run
from pretrain_cli.storage import read_lines

CURVES = ("loss", "validation_loss", "validation_bits_per_byte", "learning_rate", "grad_norm", "tokens_per_second")


def compare_runs(artifacts: Artifacts, names: Sequence[str]) -> RunComparison:
    """How runs differ in config, curves, figures and samples; writes the HTML page too.

    Raises:
        ModelError: there is no such run.
        UsageError: fewer than two different runs.
    """
    runs = [artifacts.existing_run(name) for name in dict.fromkeys(names)]
    if len(runs) < 2:
        raise UsageError("A comparison needs two runs.", "Name another one: ptk runs list")
    settings = [_flat(read_run_config(run)) for run in runs]
    values = {key: tuple(own.get(key) for own in settings) for key in sorted({key for own in settings for key in own})}
    lines = {run.name: read_lines(run.metrics) for run in runs}
    found = {key: {name: curve(own, key) for name, own in lines.items() if curve(own, key)} for key in CURVES}
    summaries = [summarize_run(run) for run in runs]
    samples = _samples(runs)
    result = RunComparison(
        runs=summaries,
        verdict=_verdict(summaries),
        differences={key: own for key, own in values.items() if any(value != own[0] for value in own)},
        curves={key: curves for key, curves in found.items() if curves},
        samples={prompt: {run: text for run, (_, text) in own.items()} for prompt, own in samples.items()},
        sample_steps={prompt: {run: step for run, (step, _) in own.items()} for prompt, own in samples.items()},
    )
    page = artifacts.comparison(*(run.name for run in runs))
    try:
        write_comparison(page, result, lines, {run.name: run for run in runs})
    except UsageError as error:  # a folder that this user may only read: the comparison itself is there
        return replace(result, warnings=[*result.warnings, f"There is no page of this comparison: {error.message}"])
    return replace(result, page=page)


def _verdict(runs: list[RunSummary]) -> str:
    """Which run is best, or why that can't be said from what they recorded."""
    evaluate = "ptk evaluate " + " ".join(run.name for run in runs)
    if len(by_data(runs)) > 1:
        return f"They were trained on different data: their figures don't compare. Score them on one text: {evaluate}"
    ranking = rank(runs)
    figures = [ranking.value(run) for run in ranking.runs]
    best, second = figures[:2]
    if ranking.figure not in HELD_OUT or best is None or second is None or None in figures:
        return f"Not all of them have a validation, so there is no verdict. Score them: {evaluate}"
    first, next_best = (run.name for run in ranking.runs[:2])
    told = f"{first} has the lowest {ranking.told}, {score(best)}: {score(second - best)} below {next_best}."
    return " ".join((told, *ranking.remarks, f"How certain that is: {evaluate}"))


def _samples(runs: list[RunFolder]) -> dict[str, dict[str, tuple[int, str]]]:
    """Prompt → run → step and text of the newest sample after it."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for run in runs:
        for line in read_lines(run.samples):
            if "text" in line:
                newest = (int(line.get("step") or 0), str(line["text"]))
                found.setdefault(str(line.get("prompt", "")), {})[run.name] = newest
    return found


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
