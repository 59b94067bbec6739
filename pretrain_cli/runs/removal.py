"""Removes runs: those named, or all but the best."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import UsageError
from pretrain_cli.runs.results import RunSummary
from pretrain_cli.runs.summary import is_training, list_runs, size_on_disk, summarize_run
from pretrain_cli.storage import write_text

FIGURES = ("bits_per_byte", "validation_loss", "train_loss")
"""That runs are ranked by, the best first."""


def runs_to_remove(artifacts: Artifacts, names: tuple[str, ...] = (), keep_best: int | None = None) -> list[RunSummary]:
    """The runs that a removal would delete: those named, or all but the best by bits per byte. Deletes nothing.

    A run that is still training is never among those that ``keep_best`` removes.

    Raises:
        UsageError: neither names nor a number to keep.
        ModelError: there is no such run.
    """
    if names:
        return [summarize_run(artifacts.existing_run(name)) for name in names]
    if keep_best is None:
        raise UsageError("Nothing says which runs to remove.", "Name them, or keep the best: --keep-best 2")
    ended = [run for run in list_runs(artifacts) if run.status != "running"]
    return sorted(ended, key=_rank(ended))[keep_best:]


def remove_runs(artifacts: Artifacts, names: list[str]) -> int:
    """Delete runs with everything in them; returns the bytes freed. ``latest`` then names the newest run left.

    Raises:
        UsageError: a run is still training.
        ModelError: there is no such run.
    """
    runs = [artifacts.existing_run(name) for name in names]
    if busy := next((run.name for run in runs if is_training(run)), None):
        raise UsageError(f"Run '{busy}' is still training.", "Stop it first.")
    _let_latest_name_another(artifacts, names)  # first: a removal that is killed leaves no name of a run that is gone
    freed = 0
    for run in runs:
        freed += size_on_disk(run)
        shutil.rmtree(run.path)
    return freed


def _let_latest_name_another(artifacts: Artifacts, removed: list[str]) -> None:
    latest = artifacts.latest.read_text("utf-8").strip() if artifacts.latest.is_file() else ""
    if latest not in removed:
        return
    left = [name for name in artifacts.run_names() if name not in removed and artifacts.run(name).model.is_dir()]
    if left:
        write_text(artifacts.latest, left[-1] + "\n")
    else:
        artifacts.latest.unlink()


def _rank(runs: list[RunSummary]) -> Callable[[RunSummary], float]:
    """By the first figure that every trained run has; the one in bytes compares across tokenizers."""
    trained = [run for run in runs if run.train_loss is not None or run.validation_loss is not None]
    figure = next(
        (name for name in FIGURES if all(getattr(run, name) is not None for run in trained)), "validation_loss"
    )

    def rank(run: RunSummary) -> float:
        value: float | None = getattr(run, figure)
        return value if value is not None and math.isfinite(value) else math.inf

    return rank
