"""Removes runs: those named, or all but the best."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import UsageError
from pretrain_cli.locking import kept_unlocked
from pretrain_cli.run_files import check_changeable, foreign_files, is_run, remove_run_files
from pretrain_cli.runs.ranking import by_data, rank
from pretrain_cli.runs.results import RunSummary
from pretrain_cli.runs.summary import is_training, list_runs, size_on_disk, summarize_run
from pretrain_cli.small_files import first_word
from pretrain_cli.storage import write_text

SHOWN = 5
"""Files that are named."""


@dataclass(frozen=True)
class Removal:
    """What a removal would delete, and what has to be known before it is confirmed."""

    runs: list[RunSummary]
    remarks: tuple[str, ...] = ()


def runs_to_remove(artifacts: Artifacts, names: tuple[str, ...] = (), keep_best: int | None = None) -> Removal:
    """The runs that a removal would delete: those named, or all but the best by their own held-out figure.

    Deletes nothing. Figures of different data don't compare: ``keep_best`` keeps that many of each. A run that is
    still training, or whose figures are damaged, is never among those that ``keep_best`` removes.

    Raises:
        UsageError: neither names nor a number to keep, or both; or this user may not remove all of a run.
        ModelError: there is no such run.
    """
    if names and keep_best is not None:
        raise UsageError(
            f"Runs are named, and --keep-best {keep_best} chooses among all: they may contradict each other.",
            "Give the names, or --keep-best, but not both.",
        )
    if names:
        named = [_real_run(artifacts, name) for name in names]
        return Removal([summarize_run(run) for run in named], tuple(told for run in named for told in _kept(run)))
    if keep_best is None:
        raise UsageError("Nothing says which runs to remove.", "Name them, or keep the best: --keep-best 2")
    ended = [run for run in list_runs(artifacts) if run.status != "running"]
    damaged = tuple(f"Run '{run.name}' is kept, whatever its figures are: {run.damage}" for run in ended if run.damage)
    groups = by_data([run for run in ended if not run.damage])
    rankings = [rank(group) for group in groups]
    several = f"These runs were trained on {len(groups)} different data: the best of each are kept."
    remarks = [*damaged, *([several] if len(groups) > 1 else [])]
    chosen = [run for ranking in rankings for run in ranking.runs[keep_best:]]
    return Removal(
        chosen,
        (
            *remarks,
            *(remark for ranking in rankings for remark in ranking.remarks),
            *(told for run in chosen for told in _kept(artifacts.run(run.name))),
        ),
    )


def remove_runs(artifacts: Artifacts, names: list[str]) -> int:
    """Delete what ptk and the trackers wrote of runs; returns the bytes freed. Other files stay where they are.

    ``latest`` then names the newest run left.

    Raises:
        UsageError: a run is still training, the folder was never a run's, or this user may not remove all of it.
        ModelError: there is no such run.
    """
    runs = [_real_run(artifacts, name) for name in names]
    if busy := next((run for run in runs if is_training(run)), None):
        raise _still_training(busy)
    _let_latest_name_another(artifacts, names)  # first: a removal that is killed leaves no name of a run that is gone
    freed = 0
    for run in runs:
        freed += size_on_disk(run)
        _remove(run)
        freed -= size_on_disk(run)
    return freed


def _remove(run: RunFolder) -> None:
    """Remove a run's files under its lock: a resume that came in between would train on what vanishes."""
    if os.name == "nt":  # which removes no file that is open, as the lock is
        remove_run_files(run)
        return
    with kept_unlocked(run.path) as kept:
        if not kept:
            raise _still_training(run)
        remove_run_files(run)


def _still_training(run: RunFolder) -> UsageError:
    return UsageError(f"Run '{run.name}' is still training.", "Stop it first.")


def _real_run(artifacts: Artifacts, name: str) -> RunFolder:
    run = artifacts.existing_run(name)
    check_changeable(run, "removed", artifacts.runs)
    # A removal that was killed at its end leaves an empty folder; one while a command scored the run, a new report.
    if not is_run(run) and {entry.name for entry in run.path.iterdir()} - {run.evaluation.name, ".lock"}:
        raise UsageError(
            f"{run.path} is not a run: it has neither {run.record.name} nor {run.config.name} of ptk's, "
            "so nothing is removed.",
            "Delete the folder yourself if nobody needs it. Runs: ptk runs list",
        )
    return run


def _kept(run: RunFolder) -> list[str]:
    """What a removal leaves of the run's folder, in a sentence; nothing where all of it is ptk's."""
    foreign = [entry.relative_to(run.path).as_posix() for entry in foreign_files(run)]
    if not foreign:
        return []
    more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
    return [f"{run.path} keeps what ptk didn't write: {', '.join(foreign[:SHOWN])}{more}."]


def _let_latest_name_another(artifacts: Artifacts, removed: list[str]) -> None:
    latest = first_word(artifacts.latest)
    if latest not in removed:
        return
    left = [name for name in artifacts.run_names() if name not in removed and _has_model(artifacts.run(name))]
    if left:
        write_text(artifacts.latest, left[-1] + "\n")
    else:
        artifacts.latest.unlink()


def _has_model(run: RunFolder) -> bool:
    try:
        return run.model.is_dir()
    except PermissionError:
        return False
