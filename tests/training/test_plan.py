"""The plan follows from the facts, keeps what was asked for, and says why."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.choices.recipe import Rates, choose_batch_tokens


def facts(**values: Any) -> Facts:
    settings: dict[str, Any] = {
        "train_rows": 9_000,
        "sequence_length": 256,
        "vocab_size": 4096,
        "flops": 190e9,
        "memory_bytes": 8e9,
    }
    return Facts(**{**settings, **values})


def test_ninety_seconds_on_two_cores_give_the_measured_recipe() -> None:
    plan = make_plan(facts(), TrainConfig(max_minutes=1.5))
    assert plan.shape is not None and (plan.shape.layers, plan.shape.hidden) == (2, 128)
    assert (plan.micro_batch, plan.accumulation, plan.batch_tokens) == (8, 1, 2048)
    rates = Rates(main=0.05, matrix=0.03, embedding=0.25, beta1=0.8, beta2=0.98)
    assert (plan.optimizer, plan.rates) == ("muon", rates)
    assert plan.seconds == 90 and plan.steps is None and plan.schedule == "linear"


def test_more_time_and_text_give_a_larger_model() -> None:
    sizes = [
        make_plan(facts(train_rows=10**6), TrainConfig(max_minutes=minutes)).shape.parameters(4096)  # type: ignore[union-attr]
        for minutes in (1, 10, 100, 1000, 10000)
    ]
    assert sizes == sorted(sizes) and sizes[-1] > 10 * sizes[0]
    little = make_plan(facts(train_rows=60), TrainConfig(max_minutes=1000))
    assert little.shape is not None and little.shape.name == "micro"
    assert "text is too short" in little.reasons["size"]


def test_without_a_budget_one_is_chosen_and_said() -> None:
    scratch, base = make_plan(facts(), TrainConfig()), make_plan(facts(base_parameters=10**8), TrainConfig())
    assert "none was given" in scratch.reasons["budget"]
    assert scratch.seconds == 600 and scratch.steps == 4 * 9_000 * 256 // scratch.batch_tokens
    assert base.steps == 9_000 * 256 // base.batch_tokens


def test_little_text_ends_a_long_run_of_one_model_before_it_is_learnt_by_heart() -> None:
    little = make_plan(facts(train_rows=60), TrainConfig(ensemble=0, max_minutes=60))
    assert little.steps == 3 * 60 * 256 // little.batch_tokens and little.seconds == 3600
    assert "3 passes" in little.reasons["budget"]
    longer = make_plan(facts(), TrainConfig(ensemble=0, max_minutes=60))
    assert longer.steps == 4 * 9_000 * 256 // longer.batch_tokens
    asked = make_plan(facts(train_rows=60), TrainConfig(ensemble=0, max_minutes=60, epochs=20))
    assert asked.steps == 20 * 60 * 256 // asked.batch_tokens
    assert make_plan(facts(train_rows=10**7), TrainConfig(ensemble=0, max_minutes=60)).steps is None


def test_a_text_of_few_tokens_takes_lower_rates_and_a_base_its_own() -> None:
    little, more = make_plan(facts(train_rows=300), TrainConfig()), make_plan(facts(train_rows=500), TrainConfig())
    assert (little.rates.main, little.rates.matrix, little.rates.embedding) == (0.025, 0.015, 0.125)
    assert more.rates.main == 0.05 and "by heart" in little.reasons["learning rate"]
    assert "by heart" not in more.reasons["learning rate"]
    base = make_plan(facts(train_rows=300, base_parameters=10**8), TrainConfig(max_minutes=600))
    assert base.rates.main == 1e-4 and "4 passes" in base.reasons["budget"]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_batch_in_tokens_is_kept_on_any_number_of_processes(world: int) -> None:
    plan = make_plan(facts(world_size=world), TrainConfig(max_steps=10, batch_tokens=16_384))
    assert plan.batch_tokens == 16_384 and plan.steps == 10
    assert plan.batch_rows_per_process * 256 * world == 16_384


def test_little_memory_means_small_micro_batches_before_anything_else() -> None:
    base = {"base_parameters": 10**8, "base_hidden": 768, "base_layers": 12, "sequence_length": 2048}
    roomy = make_plan(facts(**base, memory_bytes=80e9, on_cpu=False), TrainConfig(max_steps=5, batch_tokens=65_536))
    tight = make_plan(facts(**base, memory_bytes=6e9, on_cpu=False), TrainConfig(max_steps=5, batch_tokens=65_536))
    assert tight.micro_batch < roomy.micro_batch and tight.batch_tokens == roomy.batch_tokens
    assert not roomy.gradient_checkpointing
    assert make_plan(facts(**base, memory_bytes=2e9), TrainConfig(max_steps=5)).gradient_checkpointing


def test_what_is_asked_for_is_kept() -> None:
    wanted = TrainConfig(
        max_steps=7, learning_rate=0.5, matrix_learning_rate=0.25, schedule="wsd", warmup_steps=3, optimizer="adamw",
        micro_batch=2, gradient_accumulation=3, save_steps=5, eval_steps=0, logging_steps=4,
        gradient_checkpointing=True,
    )  # fmt: skip
    plan = make_plan(facts(), wanted, size="small", layers=3)
    assert plan.shape is not None and (plan.shape.hidden, plan.shape.layers) == (384, 3)
    assert (plan.steps, plan.rates.main, plan.schedule, plan.warmup_steps) == (7, 0.5, "wsd", 3)
    assert (plan.micro_batch, plan.accumulation, plan.batch_tokens) == (2, 3, 6 * 256)
    assert (plan.save_every, plan.eval_every, plan.logging_every, plan.gradient_checkpointing) == (5, 0, 4, True)


def test_batch_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_tokens"):
        make_plan(facts(), TrainConfig(max_steps=1, batch_tokens=4096, micro_batch=2, gradient_accumulation=2))


def test_settings_that_multiply_to_more_than_can_be_set_are_refused() -> None:
    with pytest.raises(ConfigError, match="make steps of"):
        make_plan(facts(), TrainConfig(max_steps=1, micro_batch=64, gradient_accumulation=10**15))
    with pytest.raises(ConfigError, match="embedding_learning_rate must be at most"):
        changed(Config(), train__embedding_learning_rate=5000.0)


def test_the_reason_for_a_small_batch_promises_no_more_steps_than_the_time_allows() -> None:
    assert choose_batch_tokens(60 * 512, base=True, least=512) == (
        512,
        "small, so that the time is enough for about 60 steps",
    )
    assert choose_batch_tokens(512, base=True, least=512)[1].endswith("the time is enough for few steps")
