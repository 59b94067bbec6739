"""How long does a whole training take: its start, its steps, its validations and its checkpoints?"""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.measuring.clock import FORWARD_SHARE, VALIDATION_SHARE, WRITE_BYTES_PER_SECOND
from pretrain_cli.training.measuring.intervals import LEAST_INTERVAL
from pretrain_cli.training.measuring.validation import FINAL_VALIDATION


@dataclass(frozen=True)
class Duration:
    """Optimizer steps, and seconds by what they go into."""

    steps: int
    start: float
    stepping: float
    validating: float
    saving: float

    @property
    def seconds(self) -> float:
        return self.start + self.stepping + self.validating + self.saving


def whole_duration(
    plan: Plan, train: TrainConfig, step: float, start: float, checkpoint_bytes: float, batch_rows: float, held_out: int
) -> Duration:
    """What training spends its time on; validations and checkpoints come as often as training itself would make them.

    Args:
        plan: its length and intervals.
        train: what was asked for of them.
        step: seconds of one optimizer step.
        start: seconds before the first.
        checkpoint_bytes: of one checkpoint.
        batch_rows: rows of one step over all processes.
        held_out: rows to validate on.
    """
    row = FORWARD_SHARE * step / batch_rows
    last_rows = min(FINAL_VALIDATION * train.eval_rows, held_out)
    if plan.seconds and row:
        last_rows = min(last_rows, max(1, int(VALIDATION_SHARE * plan.seconds / row)))
    last, between = last_rows * row, min(train.eval_rows, last_rows) * row
    saving = checkpoint_bytes / WRITE_BYTES_PER_SECOND
    ends = start + last + 2 * saving  # the last checkpoint, and the model
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
    return Duration(steps, start, span, last + validations * between, (2 + saves) * saving)


def _times(setting: int | str, every: int | None, steps: int, cost: float, span: float) -> int:
    """Times that something comes up before the last step.

    Every so many steps, or (None) each tenth of the time; what nobody asked for waits until it is worth its cost.
    """
    times = 9 if every is None else (steps - 1) // every if every else 0
    return times if setting != "auto" or cost <= 0 else min(times, int(span / (LEAST_INTERVAL * cost)))
