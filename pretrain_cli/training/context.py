"""Makes the training context: everything that one start of a run has in hand before its first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.base import base_nature
from pretrain_cli.config.model import Config
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.devices import Choice
from pretrain_cli.processes import rank, world_size
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.run_record import RunRecord, RunRecordFile
from pretrain_cli.training.choices.compilation import choose_compile
from pretrain_cli.training.choices.kernels import Kernels, apply_kernels, choose_kernels, hardware_of
from pretrain_cli.training.choices.machine import Machine, choose_machine
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.choices.workers import choose_workers
from pretrain_cli.training.measuring.forecast import (
    Duration,
    flops_per_token,
    run_seconds,
)
from pretrain_cli.training.planned_model import plan_model
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.prepared import PreparedRows, check_prepared, open_prepared, with_its_base


class ChoiceLog:
    """Says each choice of a start as it is made, and keeps the lines for the run's record."""

    def __init__(self, progress: Progress, reasons: Reasons | None = None) -> None:
        self._progress, self._reasons = progress, reasons or Reasons()
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        """Say and keep ``line``."""
        self.lines.append(line)
        self._progress.note(line)

    def choice(self, name: str, choice: Choice[Any]) -> None:
        """Say and keep a choice with its reason."""
        self.told(name, f"{choice.value}: {choice.reason}")

    def told(self, name: str, told: str) -> None:
        """Say and keep a choice, "value: reason"; where it was asked for, the reason is who asked."""
        self.note(f"{name} {self._reasons.told(name, told)}")


@dataclass(frozen=True)
class TrainingContext:
    """One start of a run: what was given, opened and chosen.

    Attributes:
        config: resolved; ``auto`` still stands where `plan`, `machine` and the others below say what was chosen.
        artifacts: the folder that holds the prepared data.
        run: the run's own folder.
        progress: told about steps and trouble.
        stop: the signals that came.
        record: run.json.
        choices: what was chosen, and why.
        rows: the prepared rows and their tokenizer.
        machine: what it computes on.
        model: on the CPU until Trainer moves it.
        plan: length, batches, rates, intervals.
        duration: what the time will go into, by forecast.
        kernels: a GPU's faster kernels, already applied to the model as far as they change it.
        compile_model: whether the model's body is compiled.
        workers: loader processes.
        flops_per_token: floating-point operations to train on one token.
        peak_flops: operations a second of all processes together, measured on one square matrix product.
        started: ``time.monotonic()`` of the first moment.
        command: what was typed.
        rank: of this process.
        world_size: processes.
    """

    config: Config
    artifacts: Artifacts
    run: RunFolder
    progress: Progress
    stop: StopRequests
    record: RunRecordFile
    choices: ChoiceLog
    rows: PreparedRows
    machine: Machine
    model: PreTrainedModel
    plan: Plan
    duration: Duration
    kernels: Kernels
    compile_model: bool
    workers: int
    flops_per_token: float
    peak_flops: float
    started: float
    command: tuple[str, ...]
    rank: int
    world_size: int

    @property
    def batch_rows(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.plan.batch_rows_per_process * self.world_size

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight as it is held and saved."""
        return int(next(self.model.parameters()).element_size())


def open_context(
    config: Config,
    artifacts: Artifacts,
    open_rows: Callable[[Machine], PreparedRows],
    *,
    run: RunFolder,
    progress: Progress,
    stop: StopRequests,
    record: RunRecordFile,
    choices: ChoiceLog,
    started: float,
    command: tuple[str, ...] = (),
    earlier: RunRecord | None = None,
) -> TrainingContext:
    """Choose the machine, open the rows, and build the model and its plan.

    Seeds all random numbers with ``train.seed`` before the model is built.

    Args:
        config: resolved.
        artifacts: the folder that holds the prepared data.
        open_rows: gives the rows for the chosen machine.
        run: the run's folder.
        progress: told about steps and trouble.
        stop: the signals that came.
        record: run.json.
        choices: receives what is chosen.
        started: ``time.monotonic()`` of the first moment.
        command: what was typed.
        earlier: run.json of the run that is resumed.

    Raises:
        ConfigError, DataError, ModelError: settings, rows or a base that don't fit each other.
    """
    machine = choose_machine(config.train, earlier, choices.choice)
    rows = open_rows(machine)
    planned = plan_model(config, artifacts, machine, rows, progress, started)
    model, rows, plan = planned.model, planned.rows, planned.plan
    if nature := base_nature(config.model.base):
        choices.note(f"base {nature}")
    seen = f"seen across in a row{f': {rows.why_seen}' if rows.why_seen else ''}"
    choices.note(f"documents {'kept apart in a row' if rows.masked else seen}")
    if rows.held_out_of:
        choices.note(f"validation on {rows.held_out_of}")
    for name, reason in plan.reasons.items():
        choices.told(name, reason)
    kernels = choose_kernels(hardware_of(machine.device), config.train, model.config.model_type, model.num_parameters())
    for name, reason in kernels.reasons.items():
        choices.told(name, reason)
    apply_kernels(model, kernels)
    operations = flops_per_token(model, rows.sequence_length)
    compiled = choose_compile(config.train.compile, machine, plan, run_seconds(plan))
    choices.told("compile", f"{'on' if compiled.value else 'off'}: {compiled.reason}")
    micro_seconds = plan.step_seconds / plan.accumulation
    workers = choose_workers(config.train.workers, rows.train, plan.micro_batch, micro_seconds)
    choices.choice("workers", workers)
    return TrainingContext(
        config=config,
        artifacts=artifacts,
        run=run,
        progress=progress,
        stop=stop,
        record=record,
        choices=choices,
        rows=rows,
        machine=machine,
        model=model,
        plan=plan,
        duration=planned.duration,
        kernels=kernels,
        compile_model=compiled.value,
        workers=workers.value,
        flops_per_token=operations,
        peak_flops=planned.peak_flops,
        started=started,
        command=command,
        rank=rank(),
        world_size=world_size(),
    )


def open_unrecorded(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, command: tuple[str, ...] = ()
) -> TrainingContext:
    """The context of a training that is only measured: it leaves no run behind.

    Raises:
        DataError, ConfigError, ModelError: as a training.
    """
    manifest = read_manifest(artifacts)
    config = with_its_base(config, manifest)
    check_prepared(config, manifest)
    run = RunFolder(artifacts.runs / "measured")  # only names a place, which is never written
    return open_context(
        config,
        artifacts,
        lambda machine: open_prepared(config, artifacts, manifest, machine.device),
        run=run,
        progress=progress,
        stop=StopRequests(progress.warn),
        record=RunRecordFile(run.record, writes=False),
        choices=ChoiceLog(progress),
        started=time.monotonic(),
        command=command,
    )
