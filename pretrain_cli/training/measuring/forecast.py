"""Forecasts seconds, bytes and operations of a training: the same functions for `ptk plan` and for training itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.model.limits import size_of
from pretrain_cli.training.choices.optimizer_bytes import state_bytes
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.choices.step_cost import FORWARD_SHARE

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
    trained = int(model.num_parameters(only_trainable=True))
    if not getattr(model.config, "tie_word_embeddings", False):
        weights -= int(model.get_input_embeddings().weight.numel())  # looked up, not multiplied
    layers, hidden = (size_of(model.config, name) for name in ("num_hidden_layers", "hidden_size"))
    return operations_per_token(weights, layers, hidden, sequence_length, min(trained, weights))


def published_flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """The same as published figures count it (PaLM, arXiv 2204.02311, appendix B): attention to every token of the row.

    A causal kernel computes half of attention's products; `flops_per_token` counts those.
    """
    layers, hidden = (size_of(model.config, name) for name in ("num_hidden_layers", "hidden_size"))
    heads = size_of(model.config, "num_attention_heads", 1)
    width = heads * (size_of(model.config, "head_dim") or hidden // heads)
    causal = operations_per_token(0, layers, hidden, sequence_length)
    return flops_per_token(model, sequence_length) - causal + 12.0 * layers * width * sequence_length


def operations_per_token(
    multiplied: float, layers: int, hidden: int, sequence_length: int, trained: float | None = None
) -> float:
    """Floating-point operations for a token (Kaplan et al. 2020, arXiv 2001.08361), and causal attention's products.

    2 for each weight that is multiplied on the way forward, 2 on the way back, and 2 for the gradient of each of them
    that is ``trained`` (None: all).
    """
    moved = multiplied if trained is None else trained
    return 4.0 * multiplied + 2.0 * moved + 6.0 * layers * hidden * sequence_length


def run_seconds(plan: Plan) -> float:
    """Seconds of the whole run: its budget, or what its steps take."""
    if plan.seconds and not plan.steps:
        return plan.seconds
    return min(plan.seconds or math.inf, plan.expected_steps * plan.step_seconds)


def stepping_seconds(plan: Plan, used_s: float) -> float:
    """Seconds of the whole run that steps take, where starting and ending take ``used_s`` of a budget."""
    whole = run_seconds(plan)
    return max(0.0, whole - used_s - plan.teaching_s) if whole == plan.seconds else whole


def save_seconds(size: float) -> float:
    """Seconds to save ``size`` bytes, safely."""
    return SAVE_OVERHEAD_S + size / WRITE_BYTES_PER_SECOND


def checkpoint_bytes(parameters: int, weight_bytes: int, optimizer: str) -> int:
    """Bytes that one checkpoint takes: the weights that move, and moments (Muon's matrices have one, AdamW two)."""
    return int(parameters * (weight_bytes + (6.0 if optimizer == "muon" else state_bytes(optimizer)))) + 2_000_000


def checkpoint_size(model: PreTrainedModel, optimizer: str) -> int:
    """Bytes of a checkpoint of ``model``: only the weights that move are in it."""
    moving = next(weight for weight in model.parameters() if weight.requires_grad)
    return checkpoint_bytes(int(model.num_parameters(only_trainable=True)), moving.element_size(), optimizer)


def disk_bytes(checkpoint: int, model: int, keep: int, adapter: int = 0) -> int:
    """Bytes of a whole run at most.

    Args:
        checkpoint: of one.
        model: of the finished model.
        keep: checkpoints that are kept, while another is written; and the best one's weights.
        adapter: of LoRA's matrices, which are then all of the best one's weights and are kept beside the model.
    """
    return checkpoint * (keep + 1) + model + (2 * adapter or model)


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
class Done:
    """What earlier starts of a run did: optimizer steps, and seconds of its budget."""

    steps: int = 0
    seconds: float = 0.0


NOTHING_DONE = Done()


@dataclass(frozen=True)
class Duration:
    """Optimizer steps, and seconds by what they go into.

    ``start``: into starting and ending; ``teaching``: into teachers of the run's own.
    """

    steps: int
    start: float
    stepping: float
    validating: float
    saving: float
    teaching: float = 0.0

    @property
    def seconds(self) -> float:
        return self.start + self.teaching + self.stepping + self.validating + self.saving


def whole_duration(
    plan: Plan,
    train: TrainConfig,
    step: float,
    start: float,
    checkpoint: float,
    batch_rows: float,
    held_out: int,
    done_steps: int = 0,
) -> Duration:
    """What a training spends its time on; validations and checkpoints come as often as training itself makes them.

    The steps are those that are still to be made.

    Args:
        plan: its length and intervals.
        train: what was asked for of them.
        step: seconds of one optimizer step.
        start: seconds before the first of them.
        checkpoint: bytes of one checkpoint.
        batch_rows: rows of one step over all processes.
        held_out: rows to validate on.
        done_steps: made before a resume.
    """
    row = validation_row_seconds(step, batch_rows)
    last_rows = final_validation_rows(train.eval_rows, held_out, plan.seconds, row)
    last, between = last_rows * row, min(train.eval_rows, last_rows) * row
    saving = save_seconds(checkpoint)
    ends = start + plan.teaching_s + last + 2 * saving + AFTER_STEPS_S  # the last checkpoint, and the model
    steps = None if plan.steps is None else max(0, plan.steps - done_steps)
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
        steps = fitting if steps is None else min(steps, fitting)
    assert steps is not None
    span = steps * step
    validations = _times(train.eval_steps, plan.eval_every, steps, between, span)
    saves = _times(train.save_steps, plan.save_every, steps, saving, span)
    return Duration(
        steps=steps,
        start=start + AFTER_STEPS_S,
        stepping=span,
        validating=last + validations * between,
        saving=(2 + saves) * saving,
        teaching=plan.teaching_s,
    )


def _times(setting: int | str, every: int | None, steps: int, cost: float, span: float) -> int:
    """Times that something comes up before the last step.

    Every so many steps, or (None) each tenth of the time; what nobody asked for waits until it is worth its cost.
    """
    times = 9 if every is None else max(0, steps - 1) // every if every else 0
    return times if setting != "auto" or cost <= 0 else min(times, int(span / (LEAST_INTERVAL * cost)))
