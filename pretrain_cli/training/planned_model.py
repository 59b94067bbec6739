"""Makes a run's plan from timed steps, and the model that the plan asks for."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, set_seed

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.build import build_model
from pretrain_cli.model.probes import check_causal, keeps_documents_apart
from pretrain_cli.model.sizes import Shape
from pretrain_cli.processes import world_size
from pretrain_cli.progress import Progress
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import Plan, choose_optimizer, make_plan
from pretrain_cli.training.measuring.forecast import (
    AFTER_STEPS_S,
    BEFORE_STEPS_S,
    Duration,
    checkpoint_bytes,
    whole_duration,
)
from pretrain_cli.training.measuring.step_timing import StepTimer, TimedModels
from pretrain_cli.training.processes.agreement import same
from pretrain_cli.training.processes.sharding import zero_stage
from pretrain_cli.training.rows.prepared import PreparedRows


@dataclass(frozen=True)
class PlannedModel:
    """A model, on the CPU, with its plan.

    Attributes:
        model: that training starts from.
        rows: to train on.
        plan: the choices.
        duration: what the run's time will go into, by forecast.
        peak_flops: operations a second of a matrix product, all processes together.
    """

    model: PreTrainedModel
    rows: PreparedRows
    plan: Plan
    duration: Duration
    peak_flops: float


def plan_model(
    config: Config, artifacts: Artifacts, machine: Machine, rows: PreparedRows, progress: Progress, started: float
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

    Raises:
        ConfigError, ModelError: settings or a base that don't fit each other.
    """
    peak_flops, memory = same(lambda: (machine.matmul_flops(), machine.free_bytes))

    def build(shape: Shape | None) -> PreTrainedModel:
        set_seed(config.train.seed)
        return build_model(
            config,
            artifacts,
            vocab_size=rows.tokenizer.vocab_size,
            sequence_length=rows.sequence_length,
            tokenizer=rows.tokenizer,
            shape=shape,
            dtype=machine.weights_dtype,
        )

    base = None
    if config.model.base:
        progress.stage("opening the base")
        base = build(None)
        check_causal(base, config.model.base)
        rows = _rows_for(base, rows, config)
        progress.end_stage()
    facts = Facts(
        train_rows=len(rows.train),
        sequence_length=rows.sequence_length,
        vocab_size=rows.tokenizer.vocab_size,
        flops=peak_flops,
        memory_bytes=memory,
        world_size=world_size(),
        on_cpu=machine.on_cpu,
        deepspeed=zero_stage(config.trainer) is not None,
        used_s=same(lambda: time.monotonic() - started) + BEFORE_STEPS_S + AFTER_STEPS_S,
        base_parameters=base.num_parameters() if base is not None else 0,
        base_hidden=int(getattr(base.config, "hidden_size", 1024)) if base is not None else 0,
        base_layers=int(getattr(base.config, "num_hidden_layers", 12)) if base is not None else 0,
    )
    timer = StepTimer(
        TimedModels(
            machine=machine,
            train=config.train,
            optimizer=choose_optimizer(facts, config.train).value,
            batch=lambda count: rows.train.__getitems__(range(min(count, len(rows.train)))),
            sequence_length=rows.sequence_length,
            build=lambda shape: build(shape) if base is None else base,
            peak_flops=peak_flops,
            seconds=config.train.max_minutes and config.train.max_minutes * 60,
        )
    )
    plan = make_plan(facts, config.train, config.model.size, config.model.layers, timer)
    if base is not None:
        set_seed(config.train.seed)
    model = base if base is not None else build(plan.shape)
    duration = whole_duration(
        plan,
        config.train,
        plan.step_seconds,
        time.monotonic() - started + BEFORE_STEPS_S,
        checkpoint_bytes(model.num_parameters(), model.dtype.itemsize, plan.optimizer),
        plan.batch_rows_per_process * world_size(),
        rows.held_out,
    )
    if plan.seconds is not None:
        plan = replace(plan, expected_steps=same(lambda: duration.steps))
    return PlannedModel(model, rows, plan, duration, peak_flops)


def _rows_for(base: PreTrainedModel, rows: PreparedRows, config: Config) -> PreparedRows:
    """``rows``, with documents seen across where ``base`` doesn't keep them apart.

    Raises:
        ConfigError: the config asks for them to be kept apart.
    """
    if not rows.masked or same(lambda: keeps_documents_apart(base)):
        return rows
    if config.train.mask_documents is True:
        raise ConfigError(
            f"'{config.model.base}' can't keep documents apart in a row: its code lets each see those before it.",
            "Leave train.mask_documents at auto.",
        )
    return rows.seen_across(f"{base.config.model_type} can't keep them apart")
