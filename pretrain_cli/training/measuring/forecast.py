"""Forecasts seconds, bytes and operations of a training: the same functions for `ptk plan` and for training itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.plan import Plan

FORWARD_SHARE = 0.4
"""A row costs a validation about this much of what it costs a training step (a third of the arithmetic, and its share
of everything else)."""
FINAL_VALIDATION = 10
"""The validation at the end takes this many times ``train.eval_rows``."""
VALIDATION_SHARE = 0.04
"""A validation at the end of a timed run takes at most this share of the budget."""
WRITE_BYTES_PER_SECOND = 150e6
SAVE_OVERHEAD_S = 0.5
"""What a save takes in addition to writing its bytes: flushing, reading back, renaming."""
BEFORE_STEPS_S, AFTER_STEPS_S = 1.0, 2.0
"""Seconds from a run's plan to its first step, and from its last step to the end of the process, beside validation and
saving."""
LEAST_INTERVAL = 20.0
"""A checkpoint or validation that nobody asked for waits until this many times its cost has passed: 5 % of the time."""


def flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """Floating-point operations to train on a token, as the model is built."""
    weights = int(model.num_parameters())
    if not model.config.tie_word_embeddings:
        weights -= int(model.get_input_embeddings().weight.numel())  # looked up, not multiplied
    layers, hidden = (int(getattr(model.config, name, 0) or 0) for name in ("num_hidden_layers", "hidden_size"))
    return operations_per_token(weights, layers, hidden, sequence_length)


def operations_per_token(multiplied: float, layers: int, hidden: int, sequence_length: int) -> float:
    """6 for each weight that is multiplied (Kaplan et al. 2020, arXiv 2001.08361), and causal attention's products."""
    return 6.0 * multiplied + 6.0 * layers * hidden * sequence_length


def run_seconds(plan: Plan) -> float:
    """Seconds of the whole run: its budget, or what its steps take."""
    if plan.seconds and not plan.steps:
        return plan.seconds
    return min(plan.seconds or math.inf, plan.expected_steps * plan.step_seconds)


def save_seconds(size: float) -> float:
    """Seconds to save ``size`` bytes, safely."""
    return SAVE_OVERHEAD_S + size / WRITE_BYTES_PER_SECOND


def checkpoint_bytes(parameters: int, weight_bytes: int, optimizer: str) -> int:
    """Bytes that one checkpoint takes: weights and moments (Muon's matrices have one, AdamW two)."""
    return int(parameters * (weight_bytes + (8 if optimizer != "muon" else 6))) + 2_000_000


def disk_bytes(parameters: int, weight_bytes: int, optimizer: str, keep: int) -> int:
    """Bytes of a whole run at most: the kept checkpoints, the one being written, the best one's weights, the model."""
    checkpoint = checkpoint_bytes(parameters, weight_bytes, optimizer)
    return checkpoint * (keep + 1) + 2 * weight_bytes * parameters


def validation_row_seconds(step: float, batch_rows: float) -> float:
    """Seconds to score one held-out row, from those of a training step; before a validation has been timed."""
    return FORWARD_SHARE * step / batch_rows


def final_validation_rows(eval_rows: int, held_out: int, budget_s: float | None, row_seconds: float) -> int:
    """Rows of the validation at the end; in a timed run no more than fit its share of the budget."""
    wanted = FINAL_VALIDATION * eval_rows
    if budget_s is not None and row_seconds > 0:
        wanted = min(wanted, max(1, int(VALIDATION_SHARE * budget_s / row_seconds)))
    return min(wanted, held_out)


def worth_doing(cost_s: float, since_s: float) -> bool:
    """Whether a save or validation that nobody asked for costs little against the time since the last one."""
    return since_s >= LEAST_INTERVAL * cost_s


@dataclass(frozen=True)
class Duration:
    """Optimizer steps, and seconds by what they go into; ``start``: into starting and ending."""

    steps: int
    start: float
    stepping: float
    validating: float
    saving: float

    @property
    def seconds(self) -> float:
        return self.start + self.stepping + self.validating + self.saving


def whole_duration(
    plan: Plan, train: TrainConfig, step: float, start: float, checkpoint: float, batch_rows: float, held_out: int
) -> Duration:
    """What a training spends its time on; validations and checkpoints come as often as training itself makes them.

    Args:
        plan: its length and intervals.
        train: what was asked for of them.
        step: seconds of one optimizer step.
        start: seconds before the first.
        checkpoint: bytes of one checkpoint.
        batch_rows: rows of one step over all processes.
        held_out: rows to validate on.
    """
    row = validation_row_seconds(step, batch_rows)
    last_rows = final_validation_rows(train.eval_rows, held_out, plan.seconds, row)
    last, between = last_rows * row, min(train.eval_rows, last_rows) * row
    saving = save_seconds(checkpoint)
    ends = start + last + 2 * saving + AFTER_STEPS_S  # the last checkpoint, and the model
    steps = plan.steps
    if plan.seconds is not None:
        span = max(0.0, plan.seconds - ends)
        events = sum(
            cost * _times(setting, every, int(span / step) + 1, cost, span)
            for setting, every, cost in (
                (train.eval_steps, plan.eval_every, between),
                (train.save_steps, plan.save_every, saving),
            )
        )
        fitting = max(1, int((span - events) / step))
        steps = min(steps or fitting, fitting)
    assert steps is not None
    span = steps * step
    validations = _times(train.eval_steps, plan.eval_every, steps, between, span)
    saves = _times(train.save_steps, plan.save_every, steps, saving, span)
    return Duration(steps, start + AFTER_STEPS_S, span, last + validations * between, (2 + saves) * saving)


def _times(setting: int | str, every: int | None, steps: int, cost: float, span: float) -> int:
    """Times that something comes up before the last step.

    Every so many steps, or (None) each tenth of the time; what nobody asked for waits until it is worth its cost.
    """
    times = 9 if every is None else (steps - 1) // every if every else 0
    return times if setting != "auto" or cost <= 0 else min(times, int(span / (LEAST_INTERVAL * cost)))
