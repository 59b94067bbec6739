"""What a run came to: planned against reached, trained too little or too much."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_cli.run_outcome import judge
from pretrain_cli.run_record import PlanRecord, RunRecord, TrainResult

PLAN: dict[str, Any] = {
    "steps": None, "seconds": 60.0, "expected_steps": 640, "step_seconds": 0.03, "micro_batch": 8, "accumulation": 1,
    "batch_tokens": 2048, "optimizer": "muon", "schedule": "linear", "warmup_steps": 1, "save_every": None,
    "eval_every": None, "logging_every": 1, "gradient_checkpointing": False, "learning_rate": 0.02,
    "matrix_learning_rate": 0.02, "embedding_learning_rate": 0.2,
}  # fmt: skip


def record(steps: int, planned: int = 0) -> RunRecord:
    plan = PlanRecord.model_validate({**PLAN, "expected_steps": planned}) if planned else None
    return RunRecord(run="r", status="finished", steps=steps, plan=plan)


def lines(validation: dict[int, float], *, steps: int = 100, tokens_per_second: float = 2048 / 0.03) -> list[Any]:
    return [
        {"step": step, "loss": 5 - step / steps, "tokens_per_second": tokens_per_second}
        | ({"validation_loss": validation[step]} if step in validation else {})
        for step in range(1, steps + 1)
    ]


def test_under_half_of_the_announced_steps_is_told_with_the_reason() -> None:
    outcome = judge(record(64, 640), lines({64: 4.5}, steps=64, tokens_per_second=2048 / 0.3))
    assert outcome.kind == "cut short" and outcome.early
    assert outcome.told == (
        "The run reached 64 of about 640 planned steps (10%), because a step took 0.3 s, not 30 ms: the model is "
        "undertrained."
    )
    assert judge(record(600, 640), lines({}, steps=600)).kind == ""


def test_a_run_of_a_step_is_called_that() -> None:
    outcome = judge(record(1, 1), lines({1: 6.0}, steps=1))
    assert outcome.early and outcome.told == "The run has made only 1 step: its figures say little."


@pytest.mark.parametrize(
    ("validation", "kind"),
    [
        ({20: 5.0, 40: 4.0, 60: 4.1, 80: 4.3, 100: 4.5}, "overfit"),
        ({20: 5.0, 40: 4.0, 60: 3.98, 80: 3.97, 100: 3.96}, ""),
        ({20: 5.0, 40: 4.0, 60: 3.5, 80: 3.0, 100: 2.6}, "undertrained"),
        ({20: 5.0, 70: 4.6, 100: 4.5}, ""),  # most of that was early
        ({20: 5.0, 40: 4.0, 60: 3.97, 80: 3.96, 100: 4.3}, ""),  # only the last, over other rows, says so
        ({100: 4.0}, ""),
        ({}, ""),
    ],
)
def test_the_validations_say_whether_it_was_too_much_or_too_little(validation: dict[int, float], kind: str) -> None:
    assert judge(record(100, 100), lines(validation)).kind == kind


def test_early_stopping_is_no_shortfall() -> None:
    validation = {20: 5.0, 40: 4.0, 60: 4.1, 80: 4.3, 100: 4.5}
    assert judge(record(100, 640), lines(validation), stopped_early=True).told == ""
    result = TrainResult("r", "finished", 100, 1, None, None, None, 1.0, 1.0, "model", model_step=40)  # type: ignore[arg-type]
    again = RunRecord.model_validate({**dict(record(100, 640)), "result": result})
    assert judge(again, lines(validation)).told == ""


def test_the_gap_is_between_the_last_losses() -> None:
    outcome = judge(record(100, 100), lines({100: 4.5}))
    assert outcome.gap == pytest.approx(4.5 - 4.045)
    assert judge(RunRecord(), []).gap is None and judge(RunRecord(), []).told == ""
