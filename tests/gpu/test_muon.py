"""Muon's Newton-Schulz: shared out over processes, in stacks of a bounded size, with the weights of one process."""

from __future__ import annotations

import pytest

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.choices.recipe import choose_rates, choose_warmup
from tests.support.ranks import on_ranks

STEPS = "tests.support.sharded:muon_steps"
LARGE = 1 << 26


@pytest.mark.slow
def test_processes_share_the_matrices_and_hold_a_bounded_stack() -> None:
    (alone,) = on_ranks(1, STEPS, stack=LARGE)
    assert alone["own"] == 3 * 7 and alone["most"] == 6  # of keys and values, and gate and up: two of a layer each
    for count, stack in ((2, LARGE), (4, LARGE), (2, 1)):
        found = on_ranks(count, STEPS, stack=stack)
        assert sum(one["own"] for one in found) == 3 * 7 and max(one["own"] for one in found) <= 21 / count + 3
        assert stack == LARGE or all(one["most"] == 1 for one in found)
        for one in found:
            assert one["weights"] == found[0]["weights"] == pytest.approx(alone["weights"], abs=1e-6)


def test_rates_follow_a_large_batch_and_the_warm_up_is_a_share_of_the_run() -> None:
    def main(batch: int) -> float:
        return choose_rates("adamw", 128, 10**9, batch_tokens=batch).main

    assert main(0) == main(2048) == main(32_768) and main(65_536) == pytest.approx(2**0.5 * main(2048))
    assert main(131_072) == main(10**7) == 2 * main(2048)
    assert choose_warmup(1000) == 10 * choose_warmup(100)  # ten times the batch, a tenth of the steps
    facts = Facts(10**6, 1024, 32_000, 1e15, 8e10, on_cpu=False)
    plan = make_plan(facts, TrainConfig(batch_tokens=131_072, max_steps=100))
    assert "2 times that, as a batch has 131,072 tokens" in plan.reasons["learning rate"]
    asked = make_plan(facts, TrainConfig(batch_tokens=131_072, max_steps=100, learning_rate=1e-3))
    assert asked.rates.main == 1e-3 and "times that" not in asked.reasons["learning rate"]
