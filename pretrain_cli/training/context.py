"""Makes the training context: everything that one start of a run has in hand before its first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.base import base_nature
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.formatting import byte_size, count_of
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.devices import Choice
from pretrain_cli.model.limits import size_of
from pretrain_cli.model.varlen import NAME as VARLEN
from pretrain_cli.model.varlen import fault, is_plain
from pretrain_cli.processes import rank, world_size
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.run_record import RunRecord, RunRecordFile
from pretrain_cli.training.choices.compilation import Compilation
from pretrain_cli.training.choices.kernels import (
    Attended,
    Kernels,
    apply_kernels,
    choose_kernels,
    hardware_of,
    without_lengths,
)
from pretrain_cli.training.choices.machine import Machine, choose_machine
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.choices.workers import choose_workers
from pretrain_cli.training.measuring.forecast import (
    NOTHING_DONE,
    Done,
    Duration,
    checkpoint_size,
    flops_per_token,
    published_flops_per_token,
)
from pretrain_cli.training.planned_model import PlannedModel, plan_model
from pretrain_cli.training.processes.agreement import same
from pretrain_cli.training.processes.sharded_reading import read_sharded
from pretrain_cli.training.processes.sharding import WEIGHTS_SHARDED, zero_stage
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.prepared import PreparedRows, check_prepared, open_prepared, with_its_base
from pretrain_cli.training.rows.stages import StagedRows, plan_stages
from pretrain_cli.training.step.loss import chunk_rows, logit_bytes
from pretrain_cli.training.step.teachers import Teachers

MOST_USES = 4
"""Repeated more often, a text teaches far less than fresh text (Muennighoff et al. 2023, arXiv 2305.16264)."""


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
        model: on the CPU until Trainer moves it; on the meta device until `with_weights` where they are sharded as they
            are read.
        teachers: that the model learns from as well; None without any.
        plan: length, batches, rates, intervals.
        duration: what the time will go into, by forecast.
        kernels: a GPU's faster kernels, already applied to the model as far as they change it.
        chunked_loss: whether the loss is computed in chunks of rows, without all logits.
        compilation: whether the model's body is compiled, and what is known of that.
        workers: loader processes.
        stages: which row comes when, where the mixture changes during the run; None: all rows, evenly.
        flops_per_token: floating-point operations to train on one token.
        published_flops: the same as published figures count it.
        peak_flops: operations a second of all processes together, measured on one square matrix product.
        sheet_flops: the same by the GPUs' data sheet; 0 where that isn't known.
        base_hash: fingerprint of a base that LoRA leaves as it is; empty where all weights move.
        read_from: the base whose weights are sharded as they are read; empty for any other.
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
    teachers: Teachers | None
    plan: Plan
    duration: Duration
    kernels: Kernels
    chunked_loss: bool
    compilation: Compilation
    workers: int
    stages: StagedRows | None
    flops_per_token: float
    published_flops: float
    peak_flops: float
    sheet_flops: float
    base_hash: str
    read_from: str
    started: float
    command: tuple[str, ...]
    rank: int
    world_size: int

    def with_weights(self) -> TrainingContext:
        """The same with this process's share of the weights that are sharded as they are read.

        Raises:
            ModelError: weights are missing, damaged or not finite.
        """
        if not self.read_from:
            return self
        kind, dtype = self.machine.precision, self.machine.held_dtype(self.plan.method)
        self.progress.stage("reading the base's shards")
        model = read_sharded(self.read_from, kind, dtype, self.config.model.trust_remote_code)
        apply_kernels(model, self.kernels)
        self.progress.end_stage()
        return replace(self, model=model)

    @property
    def batch_rows(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.plan.batch_rows_per_process * self.world_size

    @property
    def peak_bytes(self) -> int:
        """Memory that a process of this run took at most, in earlier starts too, as far as a checkpoint was saved."""
        return max(self.machine.peak_bytes, self.record.record.peak_memory_bytes)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of one checkpoint."""
        return checkpoint_size(self.model, self.plan.optimizer)

    @property
    def model_bytes(self) -> int:
        """Bytes of the finished model."""
        return int(self.model.num_parameters()) * self.machine.held_dtype(self.plan.method).itemsize


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
    done: Done = NOTHING_DONE,
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
        done: by its earlier starts.

    Raises:
        ConfigError, DataError, ModelError: settings, rows or a base that don't fit each other.
    """
    machine = choose_machine(config.train, earlier, choices.choice)
    rows = open_rows(machine)
    planned = plan_model(config, artifacts, machine, rows, progress, started, done)
    model, rows, plan = planned.model, planned.rows, planned.plan
    _say_what_is_planned(choices, config, planned)
    asked = config.train.model_copy(update={"fp8": False}) if plan.method.adapter else config.train
    chunked = _loss_in_chunks(config, planned)
    if chunked.reason:
        choices.note(f"loss in chunks off: {chunked.reason}, so all logits of the rows at once are held")
    elif chunked.value and not machine.on_cpu:
        choices.note(_chunks(model, plan.micro_batch * rows.sequence_length, not plan.method.adapter))
    kernels = same(lambda: _kernels(asked, planned, machine))
    if planned.read_from and kernels.fp8.value:
        kernels = replace(kernels, fp8=Choice(False, "off: the weights are sharded as they are read"))
    for name, reason in kernels.reasons.items():
        choices.told(name, reason)
    apply_kernels(model, kernels)
    if rows.masked and kernels.takes_lengths:
        rows = rows.with_lengths()
    operations = flops_per_token(model, rows.sequence_length)
    compiled = planned.compilation
    choices.told("compile", f"{'on' if compiled.value.on else 'off'}: {compiled.reason}")
    stages = _stages(config, rows, plan, choices)
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
        teachers=planned.teachers,
        plan=plan,
        duration=planned.duration,
        kernels=kernels,
        chunked_loss=chunked.value,
        compilation=compiled.value,
        workers=workers.value,
        stages=stages,
        flops_per_token=operations,
        published_flops=published_flops_per_token(model, rows.sequence_length),
        peak_flops=planned.peak_flops,
        sheet_flops=_sheet_flops(machine, planned.peak_flops, choices),
        base_hash=planned.base_hash,
        read_from=planned.read_from,
        started=started,
        command=command,
        rank=rank(),
        world_size=world_size(),
    )


def _stages(config: Config, rows: PreparedRows, plan: Plan, choices: ChoiceLog) -> StagedRows | None:
    """The stages that the config asks for; said, with the sources that are used again and again."""
    wanted = config.data.stages
    if not wanted:
        if rows.sources:
            choices.note("stages none: the rows were prepared for [[data.stages]], and this config has none")
        return None
    length_is_set = any((config.train.max_steps, config.train.epochs, config.train.max_tokens))
    if plan.steps is None or (plan.seconds and not length_is_set):
        raise ConfigError(
            "[[data.stages]] are shares of a run's steps, and a run of so many minutes has no set number of them.",
            f"Give the steps: --max-steps {plan.expected_steps} takes about that time on this machine.",
        )
    batch_rows = plan.batch_rows_per_process * world_size()
    stages = plan_stages(wanted, rows.sources, plan.steps, batch_rows, config.train.seed)
    choices.note(f"stages {stages.told(batch_rows)}")
    for name, times in stages.uses().items():
        if times > MOST_USES:
            choices.note(f"source {name} is used {times:.1f} times: a model learns little from a text after the fourth")
    return stages


def _say_what_is_planned(choices: ChoiceLog, config: Config, planned: PlannedModel) -> None:
    """The base, the rows, the teachers and each choice of the plan, with its reason."""
    rows, plan = planned.rows, planned.plan
    if nature := base_nature(config.model.base):
        choices.note(f"base {nature}")
    seen = f"seen across in a row{f': {rows.why_seen}' if rows.why_seen else ''}"
    choices.note(f"documents {'kept apart in a row' if rows.masked else seen}")
    if planned.teachers is not None:
        choices.note(f"teacher {planned.teachers.told}")
    if rows.held_out_of:
        choices.note(f"validation on {rows.held_out_of}")
    if rows.loses:
        choices.note(f"bits per byte look better than they are: the tokenizer loses {rows.loses}")
    for name, reason in plan.reasons.items():
        choices.told(name, reason)
    if plan.method.four_bit:
        choices.note("base in 4 bits while it is trained beside; the model will have its own weights, and the adapter")


def _sheet_flops(machine: Machine, measured: float, choices: ChoiceLog) -> float:
    """Operations a second by the data sheet, of all processes; what MFU is a share of is said."""
    listed, sheet = machine.sheet_flops(), machine.sheet
    if sheet is not None and measured:
        choices.note(
            f"MFU of the {listed / 1e12:.0f} TFLOP/s in the data sheet of {sheet.name}, attention counted whole, as in "
            f"published figures; matmul share of the {measured / 1e12:.0f} TFLOP/s that a matrix product reaches here"
        )
    return listed


def _loss_in_chunks(config: Config, planned: PlannedModel) -> Choice[bool]:
    """Whether the loss can be computed without all logits, with the reason where it can't."""
    wanted = config.train.chunked_loss
    if wanted != "auto":
        return Choice(wanted, "")
    # Its third stage puts the head's weights together for the head's forward alone.
    if zero_stage(config.trainer) == WEIGHTS_SHARDED:
        return Choice(False, "DeepSpeed shards the head")
    if not planned.plain_head:
        kind = planned.model.config.model_type
        return Choice(False, f"the logits of '{kind}' aren't a matrix times the last layer alone")
    return Choice(True, "")


def _chunks(model: PreTrainedModel, tokens: int, moves: bool) -> str:
    """The line that says in how many chunks the loss of ``tokens`` of a micro-batch is computed, and what they take."""
    vocabulary, hidden = (size_of(model.config, name) for name in ("vocab_size", "hidden_size"))
    count = -(-tokens // chunk_rows(vocabulary, tokens, on_cpu=False))
    held = byte_size(logit_bytes(vocabulary, hidden, tokens, on_cpu=False, moves=moves))
    whole = byte_size(12 * tokens * vocabulary)
    return f"loss in {count_of(count, 'chunk')}: {held} at most; all logits would take {whole}"


def _kernels(train: TrainConfig, planned: PlannedModel, machine: Machine) -> Kernels:
    """The kernels for the model; attention over documents of any length is tried on the device first."""
    half, model, masked = machine.matmul_dtype, planned.model, planned.rows.masked
    plain = model._supports_attention_backend and is_plain(model.config)
    attended = Attended(masked, half.itemsize == 2, plain, planned.compilation.value.on)
    hardware, config = hardware_of(machine.device), model.config
    kernels = choose_kernels(hardware, train, config.model_type, model.num_parameters(), attended)
    if kernels.attention.value == VARLEN and masked and (why := fault(machine.device, config, half)):
        return without_lengths(kernels, why)
    return kernels


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
