"""What a step takes is timed on the models that a run may train, and the plan follows from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.model.build import scratch_model
from pretrain_cli.model.sizes import Shape, named_shape
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.choices.step_cost import StepCost
from pretrain_cli.training.measuring.step_timing import StepTimer, TimedModels
from pretrain_cli.training.run import train
from tests.support.runs import Heard, record_of, small

FACTS = Facts(train_rows=9_000, sequence_length=256, vocab_size=4096, flops=400e9, memory_bytes=8e9)


class Models:
    """Builds models as training does, and counts them."""

    def __init__(self, rows: Artifacts) -> None:
        self.tokenizer, self.built = read_tokenizer(rows.tokenizer), 0
        self.dataset = PackedDataset(rows.train_rows, mask_documents=True)

    def build(self, shape: Shape | None) -> Any:
        self.built += 1
        return scratch_model(shape or named_shape("micro"), "llama", self.tokenizer.vocab_size, 32, self.tokenizer)

    def timer(self, **values: Any) -> StepTimer:
        settings: dict[str, Any] = {
            "machine": Machine("cpu", "fp32"),
            "train": TrainConfig(),
            "optimizer": "muon",
            "batch": lambda rows: self.dataset.__getitems__(range(rows)),
            "sequence_length": 32,
            "build": self.build,
            "peak_flops": 1e10,
            "seconds": None,
        }
        return StepTimer(TimedModels(**{**settings, **values}))


def test_each_shape_is_timed_once(rows) -> None:
    models = Models(rows)
    timer = models.timer()
    micro, mini = timer(named_shape("micro")), timer(named_shape("mini"))
    assert timer(named_shape("micro")) == micro and models.built == 2
    assert micro.measured and 0 < micro.token_s < mini.token_s and 0 < micro.update_s < mini.update_s


def test_timing_a_base_does_not_move_it(rows) -> None:
    models = Models(rows)
    base = models.build(None)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    cost = models.timer(build=lambda shape: base, optimizer="adamw")(None)
    assert cost.update_s > 0 and all(torch.equal(before[name], weight) for name, weight in base.state_dict().items())
    assert all(weight.grad is None for weight in base.parameters()) and "forward" not in vars(base)


def test_the_size_and_the_steps_follow_from_the_timed_steps() -> None:
    def timed(factor: float) -> Any:
        return lambda shape: StepCost(factor * shape.flops_per_token(4096, 256) / FACTS.flops, 0.01, measured=True)

    wanted = TrainConfig(max_minutes=5)
    fast, slow = (make_plan(FACTS, wanted, cost_of=timed(factor)) for factor in (1.5, 10.0))
    assert fast.shape is not None and slow.shape is not None and fast.shape.layers > slow.shape.layers
    assert slow.expected_steps == int(300 / slow.step_seconds)
    assert slow.step_seconds == pytest.approx(0.01 + 10 * 2048 * slow.shape.flops_per_token(4096, 256) / FACTS.flops)


def test_what_a_matrix_product_cannot_pay_for_is_not_timed() -> None:
    timed = []

    def cost(shape: Shape | None) -> StepCost:
        timed.append(shape)
        return StepCost(1e-6)

    make_plan(FACTS, TrainConfig(max_minutes=0.2), cost_of=cost)
    assert {shape.name for shape in timed if shape} == {"micro"}


@pytest.mark.slow
def test_a_forecast_that_was_wrong_is_corrected_after_the_first_tenth(rows, monkeypatch) -> None:
    monkeypatch.setattr(StepTimer, "__call__", lambda self, shape: StepCost(0.1, measured=True))
    heard = Heard()
    result = train(small(train__max_steps=None, train__max_minutes=0.25), rows, heard, run_name="corrected")
    said = [note for note in heard.notes if note.startswith("corrected: about")]
    assert len(said) == 1 and said[0] in record_of(rows.run("corrected")).choices
    assert "steps, not 1:" in said[0] and result.steps > 1


@pytest.mark.slow
def test_a_run_says_before_its_first_step_what_a_step_takes(rows) -> None:
    train(small(train__max_steps=3), rows, run_name="timed")
    plan = record_of(rows.run("timed")).plan
    assert plan is not None and plan.step_seconds is not None and plan.step_seconds > 0
