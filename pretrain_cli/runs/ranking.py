"""Ranks runs: one order for the verdict of a comparison and for what a removal keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain_cli.formatting import count, count_of, exact
from pretrain_cli.runs.results import RunSummary

FIGURES = {"bits_per_byte": "bits per byte", "validation_loss": "validation loss", "train_loss": "training loss"}
"""Fields of a summary that runs are ranked by, the best first. All are the training's own, so that they are measured
alike; an evaluation's figures, which only some runs have, would compare unlike with unlike."""
HELD_OUT = ("bits_per_byte", "validation_loss")
"""Those of text that the runs weren't trained on: only these decide a verdict."""


@dataclass(frozen=True)
class Ranking:
    """Runs in order.

    Attributes:
        runs: the best first; those without a finite figure last.
        figure: the field of `FIGURES` that decided; empty where no run has any.
        remarks: sentences about what makes the figures differ in kind; empty where nothing does.
    """

    runs: tuple[RunSummary, ...]
    figure: str
    remarks: tuple[str, ...]

    @property
    def told(self) -> str:
        """The figure in words."""
        return FIGURES.get(self.figure, "")

    def value(self, run: RunSummary) -> float | None:
        """A run's figure; None where it has none that is finite."""
        found: float | None = getattr(run, self.figure) if self.figure else None
        return found if found is not None and math.isfinite(found) else None


def rank(runs: Sequence[RunSummary]) -> Ranking:
    """Order runs that were trained on the same data, by the first figure that every trained one has."""
    trained = [run for run in runs if any(getattr(run, name) is not None for name in FIGURES)]
    figure = next((name for name in FIGURES if trained and all(getattr(run, name) is not None for run in trained)), "")
    if not figure and trained:
        figure = "validation_loss"
    ranking = Ranking(tuple(runs), figure, tuple(_remarks(trained, figure)))

    def place(run: RunSummary) -> float:
        value = ranking.value(run)
        return math.inf if value is None else value

    return Ranking(tuple(sorted(runs, key=place)), figure, ranking.remarks)


def by_data(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Runs grouped by the data they were trained on: figures of different groups don't compare."""
    groups: dict[str, list[RunSummary]] = {}
    for run in runs:
        groups.setdefault(run.data, []).append(run)
    return list(groups.values())


def _remarks(runs: Sequence[RunSummary], figure: str) -> list[str]:
    found = [f"{run.name} is unfinished: {_reached(run)}." for run in runs if run.status != "finished"]
    rows = {run.name: run.validation_rows for run in runs if run.validation_rows is not None}
    if figure in HELD_OUT and len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {exact(number)}" for name, number in rows.items())
        found.append(f"Their last validations took different numbers of rows: {told}.")
    return found


def _reached(run: RunSummary) -> str:
    planned = f" of about {count(run.planned_steps)} planned" if run.planned_steps else ""
    return f"{run.status} after {count_of(run.steps, 'step')}{planned}"
