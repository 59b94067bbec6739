"""Makes a run's plan from timed steps, and the model that the plan asks for."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel, set_seed

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.adapters import attach_adapter, weights_hash
from pretrain_cli.model.build import build_model, check_length, scratch_model, starting_location
from pretrain_cli.model.config_checks import check_trains
from pretrain_cli.model.devices import Choice
from pretrain_cli.model.files import USE_ANOTHER, check_vocabulary, check_weight_files
from pretrain_cli.model.limits import position_limit, size_of
from pretrain_cli.model.load import embedding_rows, read_model_config
from pretrain_cli.model.probes import check_causal, head_is_plain, keeps_documents_apart
from pretrain_cli.model.sizes import Shape
from pretrain_cli.model.varlen import is_plain
from pretrain_cli.processes import world_size
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import TokenizerInfo
from pretrain_cli.training.choices.batch import check_fits
from pretrain_cli.training.choices.compilation import Compilation, choose_compile
from pretrain_cli.training.choices.compile_memory import compile_key
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.kernels import Attended, hardware_of, makes_mask
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.method import FULL, Method, check_method
from pretrain_cli.training.choices.plan import Plan, choose_optimizer, make_plan
from pretrain_cli.training.measuring.forecast import (
    AFTER_STEPS_S,
    BEFORE_STEPS_S,
    Done,
    Duration,
    checkpoint_size,
    stepping_seconds,
    whole_duration,
)
from pretrain_cli.training.measuring.methods import BaseWork, told
from pretrain_cli.training.measuring.methods import build as build_random
from pretrain_cli.training.measuring.peaks import ScratchPeaks, scratch_peaks
from pretrain_cli.training.measuring.step_timing import StepTimer, TimedModels
from pretrain_cli.training.processes.agreement import same
from pretrain_cli.training.processes.sharded_reading import BaseShapes, outline_of
from pretrain_cli.training.processes.sharding import zero_stage
from pretrain_cli.training.rows.prepared import PreparedRows
from pretrain_cli.training.step.teachers import Teachers
from pretrain_cli.training.teacher_models import Taught, open_teachers


@dataclass(frozen=True)
class PlannedModel:
    """A model, on the CPU, with its plan.

    Attributes:
        model: that training starts from; on the meta device where `read_from` says where its weights are.
        plain_head: whether logits are the last hidden state times the head's matrix.
        teachers: that it learns from as well, on the run's device.
        rows: to train on.
        plan: the choices.
        duration: what the run's time will go into, by forecast.
        peak_flops: operations a second of a matrix product, all processes together.
        compilation: whether the model's body is compiled, and why.
        base_hash: fingerprint of a base that doesn't move; empty where all weights do.
        read_from: the base whose weights are sharded as they are read, before the first step; empty for any other.
    """

    model: PreTrainedModel
    plain_head: bool
    teachers: Teachers | None
    rows: PreparedRows
    plan: Plan
    duration: Duration
    peak_flops: float
    compilation: Choice[Compilation]
    base_hash: str = ""
    read_from: str = ""


def plan_model(
    config: Config,
    artifacts: Artifacts,
    machine: Machine,
    rows: PreparedRows,
    progress: Progress,
    started: float,
    done: Done,
) -> PlannedModel:
    """Time steps, choose, and build the model. A base comes first, since its size shapes the plan.

    Seeds all random numbers with ``train.seed`` before the model is built.

    Args:
        config: resolved.
        artifacts: where a converted base is kept.
        machine: what the run computes on.
        rows: the prepared rows.
        progress: told while a base is opened.
        started: ``time.monotonic()`` of the run's first moment.
        done: before a resume, whose own start takes nothing from the budget.

    Raises:
        ConfigError, ModelError: settings or a base that don't fit each other.
    """
    teachers = open_teachers(config.train, artifacts, machine, rows_for_teachers(rows), progress)
    peak_flops, memory = same(lambda: (machine.matmul_flops(), machine.free_bytes))
    facts = Facts(
        train_rows=len(rows.train),
        sequence_length=rows.sequence_length,
        vocab_size=rows.tokenizer.vocab_size,
        flops=peak_flops,
        memory_bytes=memory,
        world_size=world_size(),
        on_cpu=machine.on_cpu,
        deepspeed=zero_stage(config.trainer) is not None,
    )
    building = _Building(config, artifacts, machine, rows.tokenizer, rows.sequence_length)
    if config.model.base:
        base = _open_base(building, rows, facts, progress)
    else:
        check_method(config, facts.deepspeed, "")
        base = _Base(rows, replace(facts, peaks=_scratch_peaks(config, rows, machine, facts)))
    rows, opened = base.rows, base.model
    passed = done.seconds or same(lambda: time.monotonic() - started)
    used = passed + BEFORE_STEPS_S + AFTER_STEPS_S
    facts = replace(base.facts, used_s=used)
    timer = StepTimer(
        TimedModels(
            machine=machine,
            train=config.train,
            optimizer=choose_optimizer(facts, config.train).value,
            batch=lambda count: rows.train.__getitems__(range(min(count, len(rows.train)))),
            sequence_length=rows.sequence_length,
            build=lambda shape: building.build(shape) if opened is None else opened,
            peak_flops=peak_flops,
            seconds=config.train.max_minutes and config.train.max_minutes * 60,
            teachers=teachers,
        )
    )
    # A base that has no weights yet isn't timed: its plan says what it assumes.
    cost_of = timer if base.outline is None else None
    plan = make_plan(facts, config.train, config.model.size, config.model.layers, cost_of)
    check_fits(facts, config.train, plan.shape)
    if base.reason:
        plan = replace(plan, reasons={"method": base.reason, **plan.reasons})
    if opened is not None:
        set_seed(config.train.seed)
    model = opened if opened is not None else building.build(plan.shape)
    key = compile_key(model.config, machine, plan.micro_batch, rows.sequence_length, masked=rows.masked)
    compilation = same(
        lambda: choose_compile(config.train.compile, machine, plan, stepping_seconds(plan, used), key=key)
    )
    plan = replace(plan, cost=plan.cost.compiled(compilation.value.cost.gain))
    before_steps = (done.seconds or time.monotonic() - started) + BEFORE_STEPS_S + compilation.value.cost.first_s
    duration = whole_duration(
        plan,
        config.train,
        plan.step_seconds,
        before_steps,
        checkpoint_size(model, plan.optimizer),
        plan.batch_rows_per_process * world_size(),
        rows.held_out,
        done.steps,
    )
    if plan.seconds is not None:
        steps = min(done.steps + duration.steps, plan.steps or sys.maxsize)
        plan = replace(plan, expected_steps=same(lambda: steps))
    # Asked while the model is on the CPU as it was opened: a GPU's attention can't run there.
    plain = base.outline.plain_head if base.outline is not None else same(lambda: head_is_plain(model))
    return PlannedModel(
        model, plain, teachers, rows, plan, duration, peak_flops, compilation, base.hash, base.read_from
    )


@dataclass(frozen=True)
class _Building:
    """What every model of a run is built from."""

    config: Config
    artifacts: Artifacts
    machine: Machine
    tokenizer: TokenizerInfo
    sequence_length: int

    def build(self, shape: Shape | None, method: Method = FULL, location: str | None = None) -> PreTrainedModel:
        """A model of ``shape`` with random weights, or the base at ``location``."""
        set_seed(self.config.train.seed)
        return build_model(
            self.config,
            self.artifacts,
            vocab_size=self.tokenizer.vocab_size,
            sequence_length=self.sequence_length,
            tokenizer=self.tokenizer,
            shape=shape,
            dtype=self.machine.held_dtype(method),
            four_bit=self.machine.matmul_dtype if method.four_bit else None,
            device=self.machine.device,
            location=location,
        )


@dataclass(frozen=True)
class _Base:
    """What a run starts from: the base, if there is one, and what follows from it."""

    rows: PreparedRows
    facts: Facts
    model: PreTrainedModel | None = None
    reason: str = ""
    hash: str = ""
    outline: BaseShapes | None = None
    read_from: str = ""


def _open_base(building: _Building, rows: PreparedRows, facts: Facts, progress: Progress) -> _Base:
    """The base with its method, and rows and facts as they follow from it.

    Raises:
        ConfigError, ModelError: it doesn't fit the settings.
    """
    config = building.config
    progress.stage("opening the base")
    location = starting_location(config, rows.tokenizer, building.artifacts)
    work = _base_work(config, location, rows, building.machine, facts)
    method, facts = same(work.settle)
    dtype = building.machine.held_dtype(method.value)
    outline = outline_of(config, work.model_config, building.machine.device, dtype)
    if outline is not None:
        check_length(position_limit(outline.model), rows.sequence_length, config.model.base)
        check_vocabulary(rows.tokenizer.vocab_size, embedding_rows(outline.model), config.model.base)
        rows = _rows_for(outline.model, rows, config, outline.keeps_apart)
        progress.end_stage()
        return _Base(rows, _of_base(facts, outline.model), outline.model, told(method), "", outline, location)
    model = building.build(None, method.value, location)
    check_causal(model, config.model.base)
    rows = _rows_for(model, rows, config, not rows.masked or same(lambda: keeps_documents_apart(model)))
    facts, found = _of_base(facts, model), ""
    if method.value.adapter:
        found = weights_hash(model)
        set_seed(config.train.seed)
        attach_adapter(model, config.train, method.value.rank, location, rows.new_tokens)
    progress.end_stage()
    return _Base(rows, facts, model, told(method), found)


def _holds_mask(config: Config, rows: PreparedRows, machine: Machine, plain: bool) -> bool:
    """Whether the attention that will be chosen holds a mask."""
    attended = Attended(rows.masked, machine.matmul_dtype.itemsize == 2, plain)
    return makes_mask(hardware_of(machine.device), config.train, attended)


def _scratch_peaks(config: Config, rows: PreparedRows, machine: Machine, facts: Facts) -> ScratchPeaks | None:
    """What a GPU would hold of models from scratch."""
    model, vocabulary, length = config.model, rows.tokenizer.vocab_size, rows.sequence_length

    def config_of(shape: Shape) -> PreTrainedConfig:
        with torch.device("meta"):
            return scratch_model(shape, model.family, vocabulary, length, rows.tokenizer, model.activation).config

    return scratch_peaks(
        config.train,
        facts,
        sequence_length=length,
        precision=machine.precision,
        masked=_holds_mask(config, rows, machine, True),
        config_of=config_of,
        build=build_random,
    )


def _base_work(config: Config, location: str, rows: PreparedRows, machine: Machine, facts: Facts) -> BaseWork:
    """What the ways to train the base are weighed by."""
    if config.model.init != "random" and Path(location).is_dir():  # before a model of these sizes is counted
        check_weight_files(Path(location))
    model_config = read_model_config(location, config.model.trust_remote_code)
    check_trains(model_config.to_dict(), config.model.base, USE_ANOTHER)
    return BaseWork(
        config=config,
        model_config=model_config,
        sequence_length=rows.sequence_length,
        masked=_holds_mask(config, rows, machine, is_plain(model_config)),
        precision=machine.precision,
        facts=facts,
    )


def _of_base(facts: Facts, base: PreTrainedModel) -> Facts:
    """``facts`` with the base as it is, reshaped or not."""
    return replace(
        facts,
        base_parameters=base.num_parameters(),
        base_hidden=size_of(base.config, "hidden_size", 1024),
        base_layers=size_of(base.config, "num_hidden_layers", 12),
    )


def rows_for_teachers(rows: PreparedRows) -> Taught:
    """What teachers have to know of the rows."""
    return Taught(rows.tokenizer.folder, rows.sequence_length, rows.masked)


def _rows_for(base: PreTrainedModel, rows: PreparedRows, config: Config, keeps_apart: bool) -> PreparedRows:
    """``rows``, with documents seen across where ``base`` doesn't keep them apart.

    Raises:
        ConfigError: the config asks for them to be kept apart.
    """
    if not rows.masked or keeps_apart:
        return rows
    if config.train.mask_documents is True:
        raise ConfigError(
            f"'{config.model.base}' can't keep documents apart in a row: its code lets each see those before it.",
            "Leave train.mask_documents at auto.",
        )
    return rows.seen_across(f"{base.config.model_type} can't keep them apart")
