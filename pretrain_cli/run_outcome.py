"""Judges what a run came to: the steps it reached of those announced, trained too little or too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pretrain_cli.formatting import count_of, duration, exact, percent, score
from pretrain_cli.run_record import RunRecord

FEW_STEPS = 10
CUT_SHORT = 0.5
"""Share of the announced steps below which a run is called cut short."""
LATE = 0.2
"""Share of a run's steps, its last, over which a loss is called still falling."""
FALLING = 0.05
"""Share of the loss that it falls by in that time, or in proportion in a longer one."""
RISING = 0.02
"""Share by which the last validation loss is above the lowest one, where a run is called overfit."""
LEAST_VALIDATIONS = 3
SLOWER = 1.5
"""Times as long as announced that a step took, where that is told as the reason."""
TRAIN_LINES = 0.1
"""Share of the logged training losses, the last, that are compared with the last validation loss."""


@dataclass(frozen=True)
class RunOutcome:
    """What a run came to.

    Attributes:
        steps: reached.
        planned_steps: as announced before the first step; None where nothing was.
        train_loss: mean of the last tenth of the logged ones.
        validation_loss: the last.
        kind: "cut short", "few steps", "undertrained", "overfit" or "".
        told: the same in a sentence for people; empty where there is nothing to say.
    """

    steps: int
    planned_steps: int | None
    train_loss: float | None
    validation_loss: float | None
    kind: str = ""
    told: str = ""

    @property
    def gap(self) -> float | None:
        """Validation loss minus training loss; None without either."""
        if self.train_loss is None or self.validation_loss is None:
            return None
        return self.validation_loss - self.train_loss

    @property
    def early(self) -> bool:
        """Whether its figures are those of a run that has hardly begun."""
        return self.kind in ("cut short", "few steps")

    @property
    def reached(self) -> str:
        """ "12 of 640 planned steps (2%)"; empty where nothing was planned or all was reached."""
        if not self.planned_steps or self.steps >= self.planned_steps:
            return ""
        share = percent(self.steps / self.planned_steps)
        return f"{exact(self.steps)} of about {count_of(self.planned_steps, 'planned step')} ({share})"


def judge(record: RunRecord, lines: Sequence[Mapping[str, Any]], *, stopped_early: bool = False) -> RunOutcome:
    """What a run came to that has ended.

    Args:
        record: run.json.
        lines: of metrics.jsonl.
        stopped_early: early stopping ended it, which is no shortfall.
    """
    train, validation = _values(lines, "loss"), _values(lines, "validation_loss")
    steps = record.steps or max((int(line.get("step") or 0) for line in lines), default=0)
    last = train[-max(1, round(TRAIN_LINES * len(train))) :]
    stopped_early = stopped_early or (record.result is not None and record.result.model_step is not None)
    outcome = RunOutcome(
        steps=steps,
        planned_steps=record.plan.expected_steps if record.plan is not None else None,
        train_loss=sum(loss for _, loss in last) / len(last) if last else None,
        validation_loss=validation[-1][1] if validation else None,
    )
    kind, told = ("", "") if stopped_early else _verdict(outcome, validation, _slower(record, lines))
    return replace(outcome, kind=kind, told=told)


def _verdict(outcome: RunOutcome, validation: Sequence[tuple[int, float]], slower: str) -> tuple[str, str]:
    steps, planned = outcome.steps, outcome.planned_steps
    if planned and steps < CUT_SHORT * planned:
        return "cut short", f"The run reached {outcome.reached}{slower}: the model is undertrained."
    if 0 < steps < FEW_STEPS:
        return "few steps", f"The run has made only {count_of(steps, 'step')}: its figures say little."
    if len(validation) < LEAST_VALIDATIONS:
        return "", ""
    # The last validation takes more rows than those before it, so one of those has to say the same.
    newest = [loss for _, loss in validation[-2:]]
    best_step, best = min(validation, key=lambda point: point[1])
    if min(newest) > (1 + RISING) * best:
        rise = f"from {score(best)} at step {exact(best_step)} to {score(newest[-1])}"
        return (
            "overfit",
            f"The validation loss rose {rise}: the model is overfit. More text or fewer steps help.",
        )
    before = [point for point in validation[:-2] if point[0] <= (1 - LATE) * steps]
    if before and max(newest) < before[-1][1]:
        step, loss = before[-1]
        share_of_steps = (steps - step) / steps
        if newest[-1] < loss * (1 - FALLING * share_of_steps / LATE):
            fall = f"from {score(loss)} at step {exact(step)} to {score(newest[-1])}"
            return "undertrained", f"The validation loss was still falling {fall}: more steps may lower it."
    return "", ""


def _slower(record: RunRecord, lines: Sequence[Mapping[str, Any]]) -> str:
    """ ", because a step took 0.9 s, not 0.1 s", where that is why."""
    speeds = [speed for _, speed in _values(lines, "tokens_per_second") if speed > 0]
    if record.plan is None or not record.plan.step_seconds or not speeds:
        return ""
    took = sum(record.plan.batch_tokens * record.plan.fill / speed for speed in speeds) / len(speeds)
    if took < SLOWER * record.plan.step_seconds:
        return ""
    return f", because a step took {duration(took)}, not {duration(record.plan.step_seconds)}"


def _values(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of each line that has ``key``."""
    return [(int(line["step"]), float(line[key])) for line in lines if isinstance(line.get(key), int | float)]
