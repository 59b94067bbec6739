"""What a run remembers about itself: run.json, a typed and versioned record."""

from __future__ import annotations

import importlib.metadata
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from pretrain_cli.addresses import redact_all
from pretrain_cli.artifacts import RunFolder
from pretrain_cli.errors import ModelError
from pretrain_cli.records import FileRecord, Record, VersionedRecord, read_versioned
from pretrain_cli.refusals import denied
from pretrain_cli.sealing import YOURS, broken_seal, open_seal, sealed
from pretrain_cli.small_files import small_text
from pretrain_cli.storage import parse_toml, write_sealed_json, write_text
from pretrain_cli.version import __version__

VERSION = 1
"""Of run.json's format. Version 0.1.0 of ptk wrote the same without the number."""
PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "wandb")
RunStatus = Literal["unknown", "running", "finished", "interrupted", "diverged", "failed", "refused"]
"""Refused: its settings ended it before its first step."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. ``seconds`` counts all starts of the run; losses are nats per token.

    ``train_loss`` is that of the last line of metrics.jsonl, ``first_loss`` that of the first.
    ``validation_rows`` is the number of held-out rows that the validation figures were measured on.
    ``model_step`` is the step whose weights the model has, where early stopping took an earlier one than the last.
    ``tracking`` is the state of W&B in words. ``planned_steps`` were announced before the first step; ``outcome`` says
    where the run was cut short, undertrained or overfit.
    """

    run: str
    status: RunStatus
    steps: int
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    validation_bits_per_byte: float | None
    tokens_per_second: float
    seconds: float
    model: Path
    first_loss: float | None = None
    peak_memory_bytes: int = 0
    model_step: int | None = None
    tracking: str = ""
    planned_steps: int | None = None
    outcome: str = ""
    validation_rows: int | None = None


class PlanRecord(Record):
    """What was chosen for the run. Intervals in steps; None: by the clock, 0: only at the end.

    ``method`` is "full", "lora" or "qlora". ``expected_steps`` and ``step_seconds`` are what was forecast.
    ``fill`` is the share of the rows' places that hold text: speeds count no padding, ``batch_tokens`` does.
    """

    steps: int | None
    seconds: float | None
    expected_steps: int
    step_seconds: float | None = None
    micro_batch: int
    accumulation: int
    batch_tokens: int
    optimizer: str
    schedule: str
    warmup_steps: int
    save_every: int | None
    eval_every: int | None
    logging_every: int
    gradient_checkpointing: bool
    learning_rate: float
    matrix_learning_rate: float
    embedding_learning_rate: float
    size: str | None = None
    method: str = "full"
    lora_rank: int = 0
    fill: float = 1.0


class ResumeRecord(Record):
    """When a run was resumed (UTC), and by which command."""

    at: str
    command: tuple[str, ...] = ()


class RewindRecord(Record):
    """The rows that a rewind leaves out, and the position in the row order from which others take their place."""

    left_out: tuple[int, ...]
    replaced_from: int


class WandbRecord(Record):
    """The run at Weights & Biases: its id, address, mode and folder, and the seconds that tracking took."""

    id: str = ""
    url: str = ""
    mode: str = ""
    folder: str = ""
    seconds: float | None = None


class RunRecord(VersionedRecord):
    """run.json.

    Attributes:
        version: of this format.
        run: the run's name.
        status: "running", "finished", "interrupted", "diverged", "failed" or "refused".
        command: what was typed.
        versions: package → version.
        commit: of ptk's own code, where it runs from a checkout.
        started, ended: UTC, ISO 8601.
        steps, tokens: trained on so far, padding included; written when a start ends.
        resumes: later starts of the run.
        data_fingerprint: of the prepared data.
        base: the model it began with; empty from scratch.
        base_nature: what has to be known of it, such as that its weights are rounded; empty otherwise.
        sequence_length, device, precision, compiled, threads, parameters, world_size: of the last start.
        choices: one line for each choice, with its reason.
        plan: the same as values.
        checkpoint_step: step of the last checkpoint that was saved; 0 before the first.
        rewind: what a divergence led to, until the next checkpoint has it.
        wandb: where it is tracked.
        result: how it ended.
        peak_memory_bytes: of one process, of all starts, as of the last checkpoint or the end.
        files: path in the run's folder → record, of metrics, samples and curves, once the run has finished. The other
            files carry their own hash, or have a record in their folder.
    """

    version: int = VERSION
    run: str = ""
    status: RunStatus = "unknown"
    command: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    commit: str = ""
    started: str = ""
    ended: str | None = None
    steps: int = 0
    tokens: int = 0
    resumes: tuple[ResumeRecord, ...] = ()
    data_fingerprint: str = ""
    base: str = ""
    base_nature: str = ""
    sequence_length: int | None = None
    device: str = ""
    precision: str = ""
    compiled: bool = False
    threads: int | None = None
    parameters: int | None = None
    world_size: int = 1
    choices: tuple[str, ...] = ()
    plan: PlanRecord | None = None
    checkpoint_step: int = 0
    rewind: RewindRecord | None = None
    wandb: WandbRecord | None = None
    result: TrainResult | None = None
    peak_memory_bytes: int = 0
    files: dict[str, FileRecord] = {}

    @field_validator("base", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return value or ""


def read_run_record(run: RunFolder) -> RunRecord | None:
    """run.json of a run; None where it was never written.

    Raises:
        DataError: it isn't JSON.
        ModelError: it is damaged, or of another version.
    """
    if not run.record.is_file():
        return None
    return read_versioned(run.record, RunRecord, VERSION, VERSION, ModelError, "Start a new run: ptk train")


def read_run_config(run: RunFolder) -> dict[str, Any]:
    """config.toml of a run as it stands there, which may be of an older ptk; empty where there is none.

    Raises:
        ModelError: it is damaged.
    """
    return dict(redact_all(parse_run_config(run))) if run.config.is_file() else {}


def parse_run_config(run: RunFolder) -> dict[str, Any]:
    """The values in a run's config.toml.

    Raises:
        ModelError: it isn't there, is damaged, or isn't the one that ptk wrote.
    """
    try:
        values, changed = parse_toml(small_text(run.config)), broken_seal(run.config)
    except PermissionError as error:
        raise ModelError(*denied(error, run.config)) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{run.config} can't be read: {error}.", "Restore the file, or use another run.") from error
    if changed:
        raise ModelError(f"{changed}.", f"Restore the file, or use another run. {YOURS}")
    return values


def write_run_config(run: RunFolder, text: str) -> None:
    """Write config.toml of a run, complete or not at all, with the hash of its own text in its first line."""
    write_text(run.config, sealed(open_seal() + text))


class RunRecordFile:
    """run.json while a run trains: complete at every moment, rewritten when something changes.

    Args:
        path: run.json.
        writes: whether this process writes it (rank 0).

    Attributes:
        record: what it says; of an unknown run until `begin`.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self.record = RunRecord()

    @property
    def status(self) -> RunStatus:
        """The run's status; "unknown" before `begin`."""
        return self.record.status

    def begin(self, record: RunRecord, **changes: Any) -> None:
        """Start from ``record`` with other values for some fields, and write the file."""
        self.record = record
        self.update(**changes)

    def update(self, **changes: Any) -> None:
        """Replace fields of the record, and write the file."""
        self.record = RunRecord.model_validate({**dict(self.record), **changes})
        if self._writes:
            write_sealed_json(self.path, redact_all(self.record.model_dump(mode="json")))


def new_run_record(run: RunFolder, command: tuple[str, ...]) -> RunRecord:
    """The record of a run that starts now."""
    return RunRecord(
        run=run.name,
        status="running",
        command=command,
        versions=package_versions(),
        commit=source_commit(),
        started=now(),
    )


def package_versions() -> dict[str, str]:
    """Package → version."""
    found = {"pretrain-cli": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def source_commit() -> str:
    """The commit of this code where it runs from a checkout, else empty."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, encoding="utf-8", timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
