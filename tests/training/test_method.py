"""How a base is trained follows from the memory, and can be overruled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.app import run
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.model.load import read_model_config
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.method import FULL, Method, check_method, choose_method
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.measuring.methods import BaseWork
from pretrain_cli.training.run import train
from tests.support.runs import small
from tests.support.tiny import make_model

BYTES = {"full": 100.0, "lora": 20.0, "qlora": 5.0}


def needed(method: Method) -> float:
    return BYTES[method.name] + method.rank / 10


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        (100, FULL),
        (30, Method("lora", 64)),
        (22, Method("lora", 16)),
        (12, Method("qlora", 64)),
        (7, Method("qlora", 16)),
        (1, Method("qlora", 16)),
    ],
)
def test_the_first_method_that_fits_is_taken(free: float, chosen: Method) -> None:
    assert choose_method(TrainConfig(), needed, free).value == chosen


def test_a_flag_overrules_the_memory_and_the_reason_says_why() -> None:
    assert choose_method(TrainConfig(method="full"), needed, 1).value == FULL
    assert choose_method(TrainConfig(method="lora"), needed, 22).value == Method("lora", 16)
    assert choose_method(TrainConfig(method="lora", lora_rank=8), needed, 1).value == Method("lora", 8)
    reason = choose_method(TrainConfig(), needed, 30).reason
    assert reason == "full training takes at least 100 B of 30 B; this fits"


def test_without_the_extra_all_weights_are_trained_and_the_line_names_it() -> None:
    chosen = choose_method(TrainConfig(), needed, 30, "the package peft")
    assert chosen.value == FULL and "lora would take 26 B" in chosen.reason and "pretrain-cli[lora]" in chosen.reason


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "--base"),
        ({"model__base": "x", "model__init": "depth-up"}, "model.init"),
        ({"model__base": "x", "train__shard_model": True}, "--shard-model"),
    ],
)
def test_lora_is_refused_where_it_cannot_be_trained(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_method(changed(Config(), train__method="lora", **values), False, "")
    assert word in f"{caught.value.message} {caught.value.hint}"


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingDependencyError, match="peft") as caught:
        check_method(changed(Config(), train__method="lora", model__base="x"), False, "the package peft")
    assert 'pip install "pretrain-cli[lora]"' in caught.value.hint


def test_lora_from_scratch_leaves_no_run(rows: Artifacts) -> None:
    with pytest.raises(ConfigError, match="there is none"):
        train(small(train__method="lora"), rows, run_name="none")
    assert not rows.run("none").path.exists()


def shaped(folder: Path, hidden: int, mlp: int, layers: int, heads: int, vocabulary: int, tied: bool) -> Path:
    """A base's folder without weights."""
    folder.mkdir()
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary,
        "tie_word_embeddings": tied, "max_position_embeddings": 4096,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


SHAPES = {
    "7B": (4096, 11008, 32, 32, 32000, False),
    "1B": (2048, 8192, 16, 32, 128256, True),
    "135M": (576, 1536, 30, 9, 49152, True),
}
GOLDEN = [
    ("7B", "rtx4090", "lora", 64, 8, 19.9e9),
    ("7B", "rtx4060", "qlora", 16, 2, 6.64e9),
    ("1B", "rtx4060", "lora", 64, 1, 6.26e9),
]
"""Base, card, then what has to come out: method, rank, rows at once, bytes at the peak."""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "card", "method", "rank", "rows_at_once", "peak"), GOLDEN)
def test_a_plan_shows_what_fits_a_card(tmp_path, capfd, size, card, method, rank, rows_at_once, peak) -> None:
    base, text = shaped(tmp_path / "base", *SHAPES[size]), tmp_path / "text.txt"
    text.write_text("The whale is white. " * 60_000)
    words = ["plan", str(text), "--base", str(base), "--for", card, "--artifacts", str(tmp_path / "artifacts")]
    assert run([*words, "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["method"] == method and plan["fits"] and plan["micro_batch"] == rows_at_once
    ways = {way["method"]: way for way in plan["methods"]}
    assert list(ways) == ["full", "lora", "qlora"] and not ways["full"]["fits"] and ways[method]["rank"] == rank
    assert plan["memory"]["peak"] == ways[method]["peak_bytes"] == pytest.approx(peak, rel=0.05)
    assert f"{method} of rank {rank}" in plan["choices"]["method"]
    assert ways["full"]["tokens_per_second"] < ways["lora"]["tokens_per_second"]


def test_a_small_base_on_two_cores_is_trained_whole(tmp_path: Path) -> None:
    base = shaped(tmp_path / "base", *SHAPES["135M"])
    facts = Facts(1000, 512, 49152, flops=100e9, memory_bytes=16e9)
    work = BaseWork(Config(), read_model_config(str(base)), 512, True, "fp32", facts)
    assert work.choose().value == FULL
    assert work.with_method(FULL).held_bytes == pytest.approx(16 * 134.5e6, rel=0.1)


def test_lora_is_counted_as_peft_makes_it(tmp_path: Path) -> None:
    from pretrain_cli.model.adapters import attach_adapter
    from pretrain_cli.model.load import load_model

    folder = make_model(tmp_path / "base")
    facts = Facts(100, 32, 400, flops=1e9, memory_bytes=1e9)
    for dora in (False, True):
        train = TrainConfig(dora=dora)
        config = changed(Config(), train__dora=dora, model__base=str(folder))
        work = BaseWork(config, read_model_config(str(folder)), 32, True, "fp32", facts)
        counts = work.counts(Method("lora", 16))
        model = load_model(folder)
        base = model.num_parameters()
        attach_adapter(model, train, 16, str(folder))
        assert counts.trained == model.num_parameters(only_trainable=True) and counts.parameters == base
        assert all(w.dtype == torch.float32 for w in model.parameters() if w.requires_grad)


def test_the_rate_of_lora_is_ten_times_that_of_full_training() -> None:
    facts = Facts(1000, 512, 49152, flops=1e11, memory_bytes=1e10, base_parameters=135_000_000, base_hidden=576)
    lora = Facts(**{**facts.__dict__, "method": Method("lora", 64), "trained_parameters": 10**7, "held_bytes": 1e9})
    whole, beside = (make_plan(each, TrainConfig(max_steps=100)) for each in (facts, lora))
    assert beside.rates.main == pytest.approx(10 * whole.rates.main) and beside.optimizer == "adamw"
    assert beside.cost.token_s < whole.cost.token_s
    with pytest.raises(ConfigError, match="Muon"):
        make_plan(lora, TrainConfig(optimizer="muon"))
