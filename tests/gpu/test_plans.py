"""Rows at once, checkpointing and a refusal follow from what a GPU really holds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoConfig

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.sizes import Shape
from pretrain_cli.training.choices.batch import check_fits
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.measuring.estimate import Counts, Setup, count_weights, memory_needed
from pretrain_cli.training.measuring.methods import build
from tests.support.families import SIZES

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Held:
    """Bytes: those of the state, and of each row with and without checkpointing."""

    state: float
    row: float
    again: float

    def bytes_of(self, shape: Shape | None, rows: int, accumulation: int, checkpointing: bool) -> float:
        return self.state + rows * (self.again if checkpointing else self.row)

    def ways(self, shape: Shape | None, rows: int, checkpointing: bool, available: float) -> list[str]:
        return ["--shard-model over 4 devices: 9.0 GB"]


def facts(held: Held | None, **values: float) -> Facts:
    return Facts(
        train_rows=10_000, sequence_length=4096, vocab_size=32_000, flops=4e15, memory_bytes=80e9, on_cpu=False,
        base_parameters=7_000_000_000, base_hidden=4096, base_layers=32, peaks=held, **values,
    )  # fmt: skip


BATCH = {"batch_tokens": 8 * 4096, "max_steps": 9}


@pytest.mark.parametrize(
    ("held", "rows", "again"),
    [
        (Held(14e9, 5e9, 1e9), 8, False),
        (Held(14e9, 10e9, 1e9), 4, False),
        (Held(14e9, 50e9, 1e9), 1, False),
        (Held(14e9, 70e9, 10e9), 4, True),
        (Held(14e9, 70e9, 60e9), 1, True),
    ],
)
def test_as_many_rows_as_fit_with_checkpointing_only_where_one_does_not(held: Held, rows: int, again: bool) -> None:
    plan = make_plan(facts(held), TrainConfig(**BATCH))
    assert (plan.micro_batch, plan.gradient_checkpointing) == (rows, again)
    assert plan.batch_rows_per_process == 8
    assert ("gradient checkpointing" in plan.reasons) is again


def test_what_was_asked_for_is_taken() -> None:
    plan = make_plan(facts(Held(14e9, 10e9, 1e9)), TrainConfig(**BATCH, gradient_checkpointing=True))
    assert plan.micro_batch == 8 and plan.gradient_checkpointing
    assert make_plan(facts(Held(14e9, 10e9, 1e9)), TrainConfig(**BATCH, micro_batch=2)).micro_batch == 2


def test_a_training_that_does_not_fit_is_refused_with_what_would() -> None:
    large = facts(Held(79e9, 50e9, 9e9), world_size=8)
    with pytest.raises(ConfigError, match=r"holds 88\.0 GB on each GPU with one row at once, and 80\.0 GB") as refused:
        check_fits(large, TrainConfig(), None)
    assert "--shard-model over 4 devices" in refused.value.hint
    check_fits(facts(Held(14e9, 50e9, 9e9)), TrainConfig(), None)
    check_fits(facts(None), TrainConfig(), None)


def test_a_sharded_model_is_gathered_in_the_precision_that_it_computes_in() -> None:
    counts = Counts(7_000_000_000, 6_900_000_000, 6_700_000_000, 10**9, 32, 4096, 32_000)
    setup = Setup(1, 1, 4096, "adamw", "bf16", True, True, processes=8, sharded=True, on_cpu=False)
    whole = {precision: memory_needed(counts, Setup(**{**setup.__dict__, "precision": precision})).peak
             for precision in ("bf16", "fp32")}  # fmt: skip
    assert whole["fp32"] - whole["bf16"] == pytest.approx(2 * (2 * (7e9 - 2 * 32_000 * 4096) / 32 + 32_000 * 4096))


def test_a_head_that_is_not_plain_holds_all_logits_in_the_estimate_too() -> None:
    """Gemma 2 caps its logits, so that its loss can't be computed in chunks."""
    setup = Setup(2, 1, 64, "adamw", "fp32", False, True, on_cpu=False)
    plain, capped = (
        count_weights(AutoConfig.for_model(family, **SIZES, head_dim=8), build) for family in ("gemma", "gemma2")
    )
    assert plain.plain_head and not capped.plain_head
    assert memory_needed(capped, setup).logits == 3 * 4 * 2 * 64 * SIZES["vocab_size"]
    assert memory_needed(capped, setup).logits == memory_needed(plain, replace(setup, chunked_loss=False)).logits


def load_golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_plans", ROOT / "benchmarks" / "golden_plans.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_plans"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_7b_on_eight_h100_keeps_more_than_one_row(tmp_path) -> None:
    golden = load_golden()
    golden.write_text(tmp_path)
    golden.write_base(tmp_path, "7B")
    found = golden.plan(tmp_path, "7B", "8 × H100, sharded")
    assert found["fits"] and found["rows"] > 1, found
