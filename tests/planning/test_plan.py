"""The plan says what training then takes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.app import run
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config, TrainConfig
from pretrain_cli.errors import DataError, ModelError, UsageError
from pretrain_cli.model.accelerators import ACCELERATORS
from pretrain_cli.model.build import scratch_model
from pretrain_cli.model.sizes import named_shape
from pretrain_cli.planning import probe
from pretrain_cli.planning.accelerators import TargetMachine, all_reduce_seconds, parse_machine
from pretrain_cli.planning.run import plan_training
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.measuring.estimate import Setup, count_model, memory_needed, ways_to_fit
from pretrain_cli.training.measuring.forecast import Duration, save_seconds, whole_duration
from tests.support.tiny import make_model

TEXT = "To be, or not to be, that is the question.\n" * 4000
IDS: Any = SimpleNamespace(bos_id=0, eos_id=1, pad_id=2)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def model(layers: int = 3) -> Any:
    return scratch_model(named_shape("tiny", layers), "qwen3", 512, 64, IDS)


def build(config: Any) -> Any:
    return type(model())(config)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_counted_without_weights_are_those_of_a_real_forward_pass(precision: str) -> None:
    real, kept = model().train(), {}
    own = {weight.untyped_storage().data_ptr() for weight in real.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.zeros(4, 64, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        hidden = real.base_model(input_ids=ids, use_cache=False).last_hidden_state
    counts = count_model(real.config, build, 64, False, precision)
    expected = sum(storage.nbytes() for storage in kept.values())
    assert counts.activations_fixed + 4 * counts.activations_per_row == pytest.approx(expected, rel=0.02)
    assert counts.parameters == real.num_parameters() and hidden.requires_grad


def test_a_model_of_one_layer_is_counted_too() -> None:
    one, two = (count_model(model(layers).config, build, 64, False, "fp32") for layers in (1, 2))
    assert one.activations_per_row + one.layer_per_row == pytest.approx(two.activations_per_row, rel=0.01)


def test_a_machine_is_read_both_ways_and_an_unknown_one_names_the_nearest() -> None:
    assert parse_machine("h100x8") == parse_machine("8xH100") == TargetMachine(ACCELERATORS["h100"], 8)
    for name in ACCELERATORS:
        assert parse_machine(name) == TargetMachine(ACCELERATORS[name], 1)
        assert parse_machine(f"{name}x2") == parse_machine(f"2x{name}") == TargetMachine(ACCELERATORS[name], 2)
    assert parse_machine("a100-40").count == 1 and parse_machine("h100x64").nodes == 8
    for count in ("0", "100001", "9" * 5000):
        with pytest.raises(UsageError, match="can't be planned"):
            parse_machine(f"h100x{count}")
    with pytest.raises(UsageError, match="h10") as caught:
        parse_machine("h10x8")
    assert "h100" in caught.value.hint
    one, node, two = (all_reduce_seconds(1e9, parse_machine(name)) for name in ("h100", "h100x8", "h100x16"))
    assert one == 0 and node == pytest.approx(2 * 7 / 8 / 450) and two > node


def test_what_does_not_fit_comes_with_ways_that_do() -> None:
    counts = count_model(model().config, build, 64, False, "fp32")
    setup = Setup(64, 1, 64, "adamw", "fp32", False, True)
    needed = memory_needed(counts, setup)
    assert ways_to_fit(counts, setup, needed.peak) == []
    tight = memory_needed(counts, replace(setup, gradient_checkpointing=True)).peak
    assert any("gradient_checkpointing" in way for way in ways_to_fit(counts, setup, tight))
    assert ways_to_fit(counts, setup, 1.0)[0].startswith("a smaller model")
    half = memory_needed(counts, replace(setup, processes=2, sharded=True))
    assert half.weights == needed.weights / 2 and half.optimizer == needed.optimizer / 2


def test_the_time_counts_validations_and_checkpoints_as_training_makes_them() -> None:
    facts = Facts(train_rows=9000, sequence_length=256, vocab_size=4096, flops=190e9, memory_bytes=8e9)

    def whole(step: float, checkpoint: float, **train: Any) -> Duration:
        config = TrainConfig(batch_tokens=2048, **train)
        return whole_duration(make_plan(facts, config, "tiny"), config, step, 5.0, checkpoint, 8, 500)

    each = save_seconds(3e9)
    short = whole(0.001, 3e9, max_steps=100)
    assert short.saving == pytest.approx(2 * each)  # the last checkpoint and the model: no other is worth 20 s
    long = whole(10.0, 3e9, max_steps=1000)
    assert long.saving == pytest.approx((2 + 9) * each) and long.validating > 0
    asked = whole(0.001, 3e9, max_steps=100, save_steps=10)
    assert asked.saving == pytest.approx((2 + 9) * each)
    timed = whole(0.5, 1e6, max_minutes=2)
    assert timed.seconds == pytest.approx(120, abs=1) and timed.steps * 0.5 == timed.stepping
    assert timed.validating <= 0.1 * 120


def test_the_time_of_a_resumed_run_counts_the_steps_that_are_left() -> None:
    """What those before took is in ``start``; here without their validations and saves."""
    facts = Facts(train_rows=9000, sequence_length=256, vocab_size=4096, flops=190e9, memory_bytes=8e9)

    def whole(done_steps: int, **train: Any) -> Duration:
        config = TrainConfig(batch_tokens=2048, **train)
        plan = make_plan(facts, config, "tiny")
        return whole_duration(plan, config, 0.5, 5.0 + 0.5 * done_steps, 1e6, 8, 500, done_steps)

    fresh, resumed = whole(0, max_steps=100), whole(60, max_steps=100)
    assert (resumed.steps, resumed.stepping) == (40, 20.0)
    assert 0.9 * fresh.seconds < resumed.seconds <= fresh.seconds
    assert whole(60, max_steps=100, max_minutes=10).steps == 40
    assert whole(100, max_steps=100).saving == pytest.approx(2 * save_seconds(1e6))


def test_a_plan_for_a_machine_that_is_not_here_has_time_energy_and_price(tmp_path, text, capfd) -> None:
    words = ["plan", str(text), "--for", "h100x8", "--size", "large", "--max-tokens", "1000000000", "--json"]
    assert run([*words, "--hourly-rate", "20", "--artifacts", str(tmp_path / "artifacts")]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["processes"] == 8 and plan["precision"] == "bf16" and plan["fits"] and plan["fixes"] == []
    assert plan["flops"] == pytest.approx(6 * plan["parameters"] * plan["tokens"], rel=0.1)
    assert plan["price"] == pytest.approx(20 * plan["seconds"] / 3600) and plan["energy_kwh"] > 0
    assert plan["steps"] * plan["batch_tokens"] == plan["tokens"] == pytest.approx(1e9, rel=0.01)
    assert plan["memory"]["weights"] == 4 * plan["parameters"]
    assert any("MFU" in line for line in plan["assumptions"])
    assert {"precision", "compile", "attention", "liger", "fp8"} <= set(plan["choices"])
    assert plan["seconds"] == pytest.approx(sum(v for k, v in plan["duration"].items() if k != "steps"))
    assert not (tmp_path / "artifacts").exists()


def test_the_next_command_is_the_one_that_was_planned(tmp_path, text, capfd, monkeypatch) -> None:
    words = ["plan", str(text), "--for", "h100", "--size", "mini", "--max-steps", "10", "--hourly-rate=3"]
    monkeypatch.setattr(sys, "argv", ["ptk", *words])
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words, "--artifacts", str(tmp_path / "artifacts")]) == 0
    out, err = capfd.readouterr()
    place = f"--artifacts {tmp_path / 'artifacts'}"
    assert f"Next: ptk prepare {text} {place} && ptk train --size mini --max-steps 10 {place}\n" in err
    assert "tokens at a time, which keeps it less busy" in out and " at 3 per hour" in out


def test_a_step_that_takes_very_long_is_measured_once(monkeypatch) -> None:
    clock = iter([0.0, 0.0, 203.0])
    monkeypatch.setattr(probe.time, "perf_counter", lambda: next(clock))
    watch = probe.Watch(20.0, compiled=False)
    watch.stage("training")
    with pytest.raises(probe.Enough):
        watch.log(1, {})
    assert watch.times == [0.0, 203.0]


def test_a_step_without_end_is_said_and_not_waited_for(tmp_path, text, monkeypatch) -> None:
    monkeypatch.setattr(probe, "TIME_OUT_S", 0.2)
    config = changed(Config(), data__inputs=[str(text)], train__max_steps=10, model__size="tiny")
    with pytest.raises(ModelError, match="One step of this training takes more than") as caught:
        plan_training(config, Artifacts(tmp_path / "artifacts"))
    assert "--measure 0" in caught.value.hint


def test_without_text_or_prepared_rows_a_plan_says_what_it_lacks(tmp_path) -> None:
    with pytest.raises(DataError, match="Nothing is prepared"):
        plan_training(Config(), Artifacts(tmp_path))


@pytest.mark.slow
def test_a_base_is_planned_from_its_config_alone(tmp_path, text) -> None:
    base = make_model(tmp_path / "base")
    (base / "model.safetensors").unlink()
    config = changed(Config(), data__inputs=[str(text)], model__base=str(base), train__max_steps=10)
    plan = plan_training(config, Artifacts(tmp_path / "artifacts"), measure_seconds=0)
    assert plan.steps == 10 and 0 < plan.parameters < 200_000 and plan.optimizer == "adamw"
    deeper = changed(config, model__init="depth-up")
    assert plan_training(deeper, Artifacts(tmp_path), measure_seconds=0).parameters > plan.parameters


@pytest.mark.slow
def test_real_steps_on_random_rows_are_timed_before_anything_is_prepared(tmp_path, text, capfd) -> None:
    words = ["plan", str(text), "--size", "tiny", "--max-minutes", "30", "--measure", "2", "--json"]
    assert run([*words, "--artifacts", str(tmp_path / "artifacts")]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["step_source"].startswith("measured") and plan["step_seconds"] > 0
    assert plan["measured_peak_bytes"] == pytest.approx(plan["memory"]["peak"], rel=0.3)
    assert plan["seconds"] <= 1800 and plan["steps"] * plan["step_seconds"] <= 1800
    assert not (tmp_path / "artifacts").exists()
