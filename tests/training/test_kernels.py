"""A GPU's faster kernels are used where its facts allow them, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.model.varlen import NAME as VARLEN
from pretrain_cli.training.choices.kernels import Hardware, Kernels, choose_kernels, hardware_of, liger_config
from pretrain_cli.training.run import train
from tests.support.runs import small

HOPPER = Hardware("cuda", (9, 0), flash_attention=True, liger=True, torchao=True)
TURING = Hardware("cuda", (7, 5), flash_attention=True, liger=True, torchao=True)
BARE = Hardware("cuda", (9, 0))


def chosen(hardware: Hardware, parameters: float = 2e9, model: str = "llama", **train: Any) -> Kernels:
    return choose_kernels(hardware, TrainConfig(**train), model, parameters)


def test_a_cpu_takes_none_of_them_and_says_nothing() -> None:
    kernels = chosen(hardware_of("cpu"))
    assert (kernels.attention.value, kernels.liger.value, kernels.fp8.value) == ("sdpa", False, False)
    assert kernels.reasons == {}


def test_a_new_gpu_with_everything_installed_takes_all() -> None:
    kernels = chosen(HOPPER)
    assert (kernels.attention.value, kernels.liger.value, kernels.fp8.value) == ("flash_attention_2", True, True)
    assert set(kernels.reasons) == {"attention", "liger", "fp8"}


def test_each_is_left_out_for_a_reason_that_is_said() -> None:
    assert chosen(TURING).attention.value == VARLEN and "older than Ampere" in chosen(TURING).reasons["attention"]
    assert chosen(BARE).attention.value == VARLEN and "isn't installed" in chosen(BARE).reasons["attention"]
    assert not chosen(BARE).liger.value and "extra `gpu`" in chosen(BARE).reasons["liger"]
    assert not chosen(HOPPER, model="mamba").liger.value
    slim = replace(HOPPER, compiler=False)
    assert not chosen(slim).liger.value and "no C compiler" in chosen(slim).reasons["liger"]
    assert (
        not chosen(HOPPER, parameters=1e8).fp8.value
        and not chosen(TURING).fp8.value
        and "fp8" not in chosen(TURING).reasons
    )


def test_what_is_asked_for_is_taken_or_refused() -> None:
    assert chosen(HOPPER, parameters=1e6, fp8=True).fp8.value and not chosen(HOPPER, fp8=False).fp8.value
    for hardware, setting in (
        (TURING, {"attention": "flash"}),
        (TURING, {"fp8": True}),
        (Hardware(liger=True), {"liger": True}),
        (replace(HOPPER, compiler=False), {"liger": True}),
    ):
        with pytest.raises(ConfigError):
            chosen(hardware, **setting)
    for setting in ({"attention": "flash"}, {"fp8": True}, {"liger": True}):
        with pytest.raises(MissingDependencyError):
            chosen(BARE, **setting)


def test_ligers_mlp_is_used_for_swiglu_only() -> None:
    assert liger_config(type("C", (), {"hidden_act": "silu"}))["swiglu"]
    assert not liger_config(type("C", (), {"hidden_act": "relu2"}))["swiglu"]


def test_deepspeed_that_is_not_installed_is_said_with_the_way_to_get_it(rows) -> None:
    with pytest.raises(MissingDependencyError, match="deepspeed") as caught:
        train(
            small(train__max_steps=1, trainer={"deepspeed": {"zero_optimization": {"stage": 1}}}),
            rows,
            run_name="deepspeed",
        )
    assert caught.value.exit_code == 6 and "pip install deepspeed" in caught.value.hint
