"""Sums up what runs recorded about themselves: run.json, metrics.jsonl and report.json."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import PtkError
from pretrain_cli.evaluation_report import EvaluationReport, read_report
from pretrain_cli.locking import is_locked
from pretrain_cli.records import damaged_files
from pretrain_cli.refusals import denied
from pretrain_cli.run_outcome import judge
from pretrain_cli.run_record import RunRecord, RunStatus, WandbRecord, read_run_config, read_run_record
from pretrain_cli.runs.results import Curve, RunDetails, RunSummary
from pretrain_cli.storage import read_lines
from pretrain_cli.trees import walk

Found = TypeVar("Found")

HELD_OUT = "validation"
"""Name of the held-out rows in a report."""


def list_runs(artifacts: Artifacts) -> list[RunSummary]:
    """All runs, oldest first."""
    return [summarize_run(artifacts.run(name)) for name in artifacts.run_names()]


def show_run(artifacts: Artifacts, name: str | None = None) -> RunDetails:
    """A run's summary, whole record, config, last metrics and checkpoints; None is the latest.

    Raises:
        ModelError: there is no such run.
    """
    run = artifacts.existing_run(name)
    summary = summarize_run(run)
    lines = _tried(lambda: read_lines(run.metrics))[0]
    config, unreadable = _permitted(lambda: read_run_config(run))
    steps, unlisted = _permitted(run.checkpoint_steps)
    return RunDetails(
        summary=replace(summary, damage=summary.damage or unreadable or unlisted),
        record=_tried(lambda: read_run_record(run))[0] or RunRecord(),
        config=config or {},
        last=lines[-1] if lines else {},
        checkpoints=[run.checkpoint(step).name for step in steps or []],
    )


def summarize_run(run: RunFolder) -> RunSummary:
    """A run's line in a list; a damaged one is named, and gives the status "unknown"."""
    read, unreadable = _tried(lambda: read_run_record(run))
    report, unreadable_report = _tried(lambda: read_report(run.evaluation))
    found, unreadable_lines = _tried(lambda: read_lines(run.metrics))
    record, lines = read or RunRecord(), found or []
    last = lines[-1] if lines else {}
    status = _status(run, record)
    outcome = judge(record, lines)
    wandb = record.wandb or WandbRecord()
    return RunSummary(
        name=run.name,
        started=record.started,
        status=status,
        base=record.base,
        steps=record.steps or int(last.get("step") or 0),
        planned_steps=outcome.planned_steps,
        tokens=record.tokens or int(last.get("tokens") or 0),
        train_loss=_last(lines, "loss"),
        validation_loss=_last(lines, "validation_loss"),
        bits_per_byte=_of_training(record, lines),
        evaluated_bits_per_byte=_evaluated(report),
        validation_rows=record.result.validation_rows if record.result is not None else None,
        seconds=record.result.seconds if record.result is not None else _seconds(last),
        bytes_on_disk=size_on_disk(run),
        wandb=wandb.url or wandb.folder,
        outcome=outcome.told if status == "finished" else "",
        data=record.data_fingerprint,
        damage=unreadable or unreadable_report or unreadable_lines or _metrics_damage(run, record),
    )


def _seconds(last: dict[str, Any]) -> float | None:
    return float(last["elapsed_s"]) if "elapsed_s" in last else None


def _metrics_damage(run: RunFolder, record: RunRecord) -> str:
    """What is wrong with the run's metrics, in a sentence; empty where nothing is."""
    metrics = {name: each for name, each in record.files.items() if name == run.metrics.name}
    return "".join(f"{told}." for told in damaged_files(run.path, metrics, read=True))


def curve(lines: list[dict[str, Any]], key: str) -> Curve:
    """(step, value) of each line of metrics.jsonl that has ``key``."""
    return [(int(line["step"]), float(line[key])) for line in lines if isinstance(line.get(key), int | float)]


def size_on_disk(run: RunFolder) -> int:
    """Bytes of everything in the run's folder that this user may see."""
    return sum(_size(Path(file.path)) for _, files in walk(run.path) for file in files)


def _size(file: Path) -> int:
    try:
        found = file.stat()
    except OSError:  # a training that runs now has removed it, or its folder may be listed only
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def is_training(run: RunFolder) -> bool:
    """Whether a process trains this run now: the lock is freed however that process ends."""
    return is_locked(run.path)


def _tried(read: Callable[[], Found | None]) -> tuple[Found | None, str]:
    """(what ``read`` gives, what is wrong with it in a sentence): a run that can't be read leaves the others listed."""
    try:
        return _permitted(read)
    except PtkError as error:
        return None, error.message


def _permitted(read: Callable[[], Found | None]) -> tuple[Found | None, str]:
    """The same where only what this user may not read is let go."""
    try:
        return read(), ""
    except PermissionError as error:
        return None, denied(error)[0]


def _of_training(record: RunRecord, lines: list[dict[str, Any]]) -> float | None:
    """Bits per byte of the held-out rows: the finished model's, or as last measured while training."""
    result = record.result
    if record.status == "finished" and result is not None and result.validation_bits_per_byte is not None:
        return result.validation_bits_per_byte
    return _last(lines, "validation_bits_per_byte")


def _evaluated(report: EvaluationReport | None) -> float | None:
    """The same as the run's report has it, on all held-out rows; None where there is no readable report."""
    texts = report.models[0].texts if report is not None and report.models else ()
    return next((text.bits_per_byte for text in texts if text.name == HELD_OUT), None)


def _last(lines: list[dict[str, Any]], key: str) -> float | None:
    measured = curve(lines, key)
    return measured[-1][1] if measured else None


def _status(run: RunFolder, record: RunRecord) -> RunStatus | Literal["killed"]:
    """The record's status; a run that says it is running, but that no process holds, was killed."""
    return "killed" if record.status == "running" and not is_training(run) else record.status
