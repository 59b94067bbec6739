"""What do the runs' own records say: which there are, what they reached, how they differ, what can go?"""

from __future__ import annotations

import math
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder, read_json, read_lines, write_text
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.model.names import recorded_base


@dataclass(frozen=True)
class RunSummary:
    """One run in a list.

    ``loss`` is the last validation loss, or the last training loss where none was measured; ``wandb`` the run's address
    there, or the folder that `wandb sync` sends.
    """

    name: str
    started: str
    status: str
    base: str
    steps: int
    tokens: int
    loss: float | None
    bits_per_byte: float | None
    seconds: float | None
    bytes_on_disk: int
    wandb: str


@dataclass(frozen=True)
class RunComparison:
    """Two runs: the config keys that differ (key -> first, second), and their curves, metric -> run -> (step, value).

    ``page`` is the same as one HTML file.
    """

    first: RunSummary
    second: RunSummary
    differences: dict[str, tuple[Any, Any]]
    curves: dict[str, dict[str, list[tuple[int, float]]]]
    page: Path


CURVES = ("loss", "validation_loss", "validation_bits_per_byte", "learning_rate", "grad_norm", "tokens_per_second")


def list_runs(artifacts: Artifacts) -> list[RunSummary]:
    """All runs, oldest first."""
    return [summarise_run(artifacts.run(name)) for name in artifacts.run_names()]


def show_run(artifacts: Artifacts, name: str | None = None) -> dict[str, Any]:
    """A run's summary, whole record, config, last metrics and checkpoints; None is the latest.

    Raises:
        ModelError: there is no such run.
    """
    run = artifacts.existing_run(name)
    lines = read_lines(run.metrics)
    return {
        "summary": summarise_run(run),
        "record": _record(run),
        "config": _config(run),
        "last": lines[-1] if lines else {},
        "checkpoints": [run.checkpoint(step).name for step in run.checkpoint_steps()],
    }


def compare_runs(artifacts: Artifacts, first: str, second: str) -> RunComparison:
    """How two runs differ in config and in their curves; writes the HTML page too.

    Raises:
        ModelError: there is no such run.
    """
    from pretrain_cli.runs.comparison_page import write_comparison

    runs = [artifacts.existing_run(name) for name in (first, second)]
    one, two = (_flat(_config(run)) for run in runs)
    keys = sorted(set(one) | set(two))
    lines = {run.name: read_lines(run.metrics) for run in runs}
    found = {key: {name: curve(own, key) for name, own in lines.items() if curve(own, key)} for key in CURVES}
    result = RunComparison(
        summarise_run(runs[0]),
        summarise_run(runs[1]),
        {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)},
        {key: told for key, told in found.items() if told},
        artifacts.comparison(runs[0].name, runs[1].name),
    )
    write_comparison(result)
    return result


def runs_to_remove(artifacts: Artifacts, names: tuple[str, ...] = (), keep_best: int | None = None) -> list[RunSummary]:
    """The runs that a removal would delete: those named, or all but the best by bits per byte. Deletes nothing.

    A run that is still going is never among those that ``keep_best`` leaves over.

    Raises:
        UsageError: neither names nor a number to keep.
        ModelError: there is no such run.
    """
    if names:
        return [summarise_run(artifacts.existing_run(name)) for name in names]
    if keep_best is None:
        raise UsageError("Nothing says which runs to remove.", "Name them, or keep the best: --keep-best 2")
    ended = [run for run in list_runs(artifacts) if run.status != "running"]
    return sorted(ended, key=_rank(ended))[keep_best:]


def _rank(runs: list[RunSummary]) -> Callable[[RunSummary], float]:
    """Bits per byte where every run that has a loss has them: losses per token don't compare across tokenizers."""
    trained = [run for run in runs if run.loss is not None]
    by_bytes = all(run.bits_per_byte is not None for run in trained)

    def rank(run: RunSummary) -> float:
        value = run.bits_per_byte if by_bytes else run.loss
        return value if value is not None and math.isfinite(value) else math.inf

    return rank


def remove_runs(artifacts: Artifacts, names: list[str]) -> int:
    """Delete runs with all they hold; gives the bytes freed. ``latest`` then names the newest run left.

    Raises:
        UsageError: a run is still going.
        ModelError: there is no such run.
    """
    freed = 0
    for name in names:
        run = artifacts.existing_run(name)
        if _locked(run):
            raise UsageError(f"Run '{name}' is still training.", "Stop it first.")
        freed += _size(run)
        shutil.rmtree(run.path)
    latest = artifacts.latest.read_text("utf-8").strip() if artifacts.latest.is_file() else ""
    if latest in names:
        left = [name for name in artifacts.run_names() if artifacts.run(name).model.is_dir()]
        if left:
            write_text(artifacts.latest, left[-1] + "\n")
        else:
            artifacts.latest.unlink()
    return freed


def summarise_run(run: RunFolder) -> RunSummary:
    """A run's line in a list, from run.json, metrics.jsonl and report.json."""
    record, lines = _record(run), read_lines(run.metrics)
    validation, training = curve(lines, "validation_loss"), curve(lines, "loss")
    wandb = record.get("wandb") or ""
    return RunSummary(
        name=run.name,
        started=str(record.get("started", "")),
        status=_status(run, record),
        base=recorded_base(record),
        steps=int(record.get("steps") or (lines[-1]["step"] if lines else 0)),
        tokens=int(record.get("tokens") or (lines[-1].get("tokens") or 0 if lines else 0)),
        loss=(validation or training)[-1][1] if validation or training else None,
        bits_per_byte=_bits_per_byte(run, lines),
        seconds=float(lines[-1]["elapsed_s"]) if lines and "elapsed_s" in lines[-1] else None,
        bytes_on_disk=_size(run),
        wandb=str(wandb.get("url") or wandb.get("folder") or "") if isinstance(wandb, dict) else str(wandb),
    )


def curve(lines: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of each line that has ``key``."""
    return [(int(line["step"]), float(line[key])) for line in lines if isinstance(line.get(key), int | float)]


def _bits_per_byte(run: RunFolder, lines: list[dict[str, Any]]) -> float | None:
    report = run.evaluation / "report.json"
    if report.is_file():
        models = read_json(report).get("models") or [{}]
        for text in models[0].get("texts", []):
            if text.get("name") == "validation":
                return float(text["bits_per_byte"])
    found = curve(lines, "validation_bits_per_byte")
    return found[-1][1] if found else None


def _record(run: RunFolder) -> dict[str, Any]:
    try:
        return read_json(run.record)
    except DataError:
        return {"status": "unknown"}


def _config(run: RunFolder) -> dict[str, Any]:
    return tomllib.loads(run.config.read_text("utf-8")) if run.config.is_file() else {}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _size(run: RunFolder) -> int:
    return sum(entry.stat().st_size for entry in run.path.rglob("*") if entry.is_file())


def _status(run: RunFolder, record: dict[str, Any]) -> str:
    """The record's status; a run that says it is running, but that no process holds, was killed."""
    status = str(record.get("status", "unknown"))
    return "killed" if status == "running" and not _locked(run) else status


def _locked(run: RunFolder) -> bool:
    """Whether a process trains this run now: the lock is freed however that process ends."""
    import filelock

    file = run.path / ".lock"
    if not file.is_file():
        return False
    guard = filelock.FileLock(file)
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        return True
    guard.release()
    return False
