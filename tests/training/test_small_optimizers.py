"""Optimizers that keep less than AdamW train and resume exactly, are counted, and are refused where they don't run."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.model.load import read_model_config
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.method import FULL, Method
from pretrain_cli.training.choices.optimizer_bytes import library_of, state_bytes
from pretrain_cli.training.measuring.methods import BaseWork
from pretrain_cli.training.run import train
from tests.support.runs import Heard, PowerCut, course, cut, small, weights_equal
from tests.support.tiny import make_model

INSTALLED = ("adafactor", "adamw_8bit", "adamw_bnb_8bit", "ademamix_8bit", "lion_8bit")


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_they_train_are_smaller_than_adamw_and_resume_exactly(rows: Artifacts, name: str) -> None:
    settings = {"train__optimizer": name, "train__max_steps": 8, "train__save_steps": 4, "train__learning_rate": 1e-3}
    result = train(small(**settings), rows, run_name=name)
    with pytest.raises(PowerCut):
        train(small(**settings), rows, Heard(step_6=cut), run_name=f"{name}-cut")
    train(Config(), rows, resume=f"{name}-cut")
    one, other = rows.run(name), rows.run(f"{name}-cut")
    assert course(one) == course(other) and weights_equal(one, other)
    assert result.first_loss is not None and result.train_loss is not None and result.train_loss < result.first_loss
    weights = sum(file.stat().st_size for file in one.model.glob("*.safetensors")) / 4
    state = (one.checkpoint(8) / "optimizer.pt").stat().st_size
    assert state < 1.3 * state_bytes(name) * weights + 400_000 and state_bytes(name) < state_bytes("adamw_torch")


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("galore_adamw", MissingDependencyError, "galore-torch"),
        ("apollo_adamw", MissingDependencyError, "apollo-torch"),
        ("adamw_torch_8bit", MissingDependencyError, "torchao"),
        ("paged_adamw_8bit", ConfigError, "adamw_8bit"),
        ("paged_adamw_32bit", ConfigError, "train.optimizer=adamw"),
    ],
)
def test_what_does_not_run_here_says_what_to_do(rows: Artifacts, name: str, error: type[Exception], word: str) -> None:
    package = library_of(name)[0]
    if error is MissingDependencyError and importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(error) as caught:
        train(small(train__optimizer=name, train__max_steps=1), rows, run_name="refused")
    assert word in caught.value.hint  # type: ignore[attr-defined]
    assert not rows.run("refused").path.exists()


def test_a_short_memory_takes_a_smaller_optimizer_and_says_so(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base", hidden_size=256, intermediate_size=1024, num_hidden_layers=4, head_dim=64)
    config = changed(Config(), model__base=str(folder), train__method="full")
    facts = Facts(100, 32, 400, flops=1e9, memory_bytes=1e12)
    work = BaseWork(config, read_model_config(str(folder)), 32, True, "fp32", facts)
    sizes = {name: work.least_bytes(FULL, name) for name in ("", "adamw_8bit", "adafactor")}
    assert sizes[""] > sizes["adamw_8bit"] > sizes["adafactor"]
    for room, name in (
        (sizes[""], ""),
        (sizes["adamw_8bit"], "adamw_8bit"),
        (sizes["adafactor"], "adafactor"),
        (1, ""),
    ):
        found = replace(work, facts=replace(facts, memory_bytes=room)).with_method(FULL)
        assert found.short_optimizer == name
    on_gpu = replace(work, facts=replace(facts, memory_bytes=sizes["adamw_8bit"], on_cpu=False), elsewhere=True)
    assert on_gpu.short_optimizer(Method("qlora", 16)) in ("", "paged_adamw_8bit")
