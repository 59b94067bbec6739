"""Where an optimizer's state is after a resume: on the GPU, as far as fake tensors can tell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.training.choices.recipe import Rates
from pretrain_cli.training.step import optimizers
from pretrain_cli.training.step.optimizers import make_optimizer
from tests.support.families import SIZES
from tests.support.gpus import on_fake_gpu

RATES = Rates(main=1e-2, matrix=4e-2, embedding=1e-1)


def on_gpu(name: str) -> torch.optim.Optimizer:
    """An optimizer of a small model whose weights and gradients are on a GPU."""
    model = on_fake_gpu(AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **SIZES, head_dim=8)))
    optimizer = make_optimizer(model, name, TrainConfig(), RATES)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    return optimizer


def as_loaded(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state as Trainer gives it after a resume on one GPU: `torch.load` puts every tensor on the CPU."""
    state = copy.copy(optimizer.state_dict())
    state["state"] = {
        number: {name: torch.empty_like(value, device="cpu") for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return state


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("age", ["now", "older"])
def test_after_a_resume_on_one_gpu_every_tensor_of_the_state_is_on_it(name: str, age: str, monkeypatch) -> None:
    # A torch without CUDA can't pretend to lay a matrix out anew; where the result is doesn't depend on it.
    monkeypatch.setattr(optimizers, "orthogonalize", lambda matrices: matrices)
    with FakeTensorMode():
        optimizer = on_gpu(name)
        optimizer.step()
        saved = as_loaded(optimizer)
        if age == "older" and name == "muon":  # no group said so
            saved["param_groups"] = [
                {key: value for key, value in group.items() if key != "fused"} for group in saved["param_groups"]
            ]
        resumed = on_gpu(name)
        resumed.load_state_dict(saved)
        places = {key: value.device.type for state in resumed.state.values() for key, value in state.items()}
        assert "step" in places and set(places.values()) == {"cuda"}, places
        resumed.step()  # the fused kernel refuses a step that is elsewhere


def test_an_older_checkpoint_of_muon_resumes_to_the_same_weights() -> None:
    """Its groups don't say `fused`; one of today's does, and is read back without a change of any other value."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **SIZES, head_dim=8))

    def stepped(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> None:
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, 0.01)
        optimizer.step()

    optimizer = make_optimizer(model, "muon", TrainConfig(), RATES)
    stepped(optimizer, model)
    saved = copy.deepcopy(optimizer.state_dict())
    twin = copy.deepcopy(model)
    for group in saved["param_groups"]:
        del group["fused"]
    older = make_optimizer(twin, "muon", TrainConfig(), RATES)
    older.load_state_dict(saved)
    stepped(optimizer, model)
    stepped(older, twin)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert older.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
