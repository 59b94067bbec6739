"""Apple's GPU: no float64, work that is only queued, one process."""

from __future__ import annotations

import time

import pytest
import torch

from pretrain_cli.config.load import changed
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.model import devices
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.processes import agreement
from pretrain_cli.training.processes.launch import wanted_processes
from pretrain_cli.training.run import train
from tests.support.runs import small

PRODUCT_S = {torch.float32: 0.02, torch.bfloat16: 0.008}


@pytest.fixture
def queue(monkeypatch) -> list[float]:
    """Apple's GPU as torch sees it: a product is queued, and done when somebody waits for it."""
    waiting: list[float] = []
    plain = torch.full

    def full(size, value, dtype, device):
        return plain((2, 2), value, dtype=dtype)

    def wait() -> None:
        time.sleep(sum(waiting))
        waiting.clear()

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    monkeypatch.setattr(torch.mps, "synchronize", wait)
    monkeypatch.setattr(torch, "full", full)
    monkeypatch.setattr(torch, "mm", lambda left, right: waiting.append(PRODUCT_S[left.dtype]))
    return waiting


def test_the_speed_of_a_product_counts_its_end_not_its_beginning(queue) -> None:
    size = 4096
    measured = devices.matmul_flops(torch.float32, "mps", size)
    assert measured <= 2 * size**3 / PRODUCT_S[torch.float32]


def test_bf16_is_chosen_by_a_timing(queue, monkeypatch) -> None:
    chosen = devices.choose_precision("auto", "mps")
    assert chosen.value == "bf16" and "on Apple's GPU, as timed" in chosen.reason
    monkeypatch.setitem(PRODUCT_S, torch.bfloat16, 0.03)
    assert devices.choose_precision("auto", "mps").value == "fp32"


def test_a_system_without_bf16_trains_in_fp32(queue, monkeypatch) -> None:
    def none(left, right):
        if left.dtype == torch.bfloat16:
            raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(torch, "mm", none)
    assert devices.choose_precision("auto", "mps").value == "fp32"


def test_a_plan_finds_the_memory_of_the_machine(queue) -> None:
    assert Machine("mps", "fp32").free_bytes > 0


@pytest.mark.parametrize("way", ["--processes 2", "torchrun"])
def test_two_processes_are_refused_in_two_lines(queue, monkeypatch, way: str) -> None:
    monkeypatch.setattr(agreement, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="one process, not in 2") as refused:
        if way == "torchrun":
            with agreement.together("mps"):
                raise AssertionError("never joined")
        wanted_processes(TrainConfig(device="mps", processes=2))
    assert "--processes auto" in refused.value.hint


def test_nothing_is_made_float64_before_it_is_on_the_cpu(rows, monkeypatch) -> None:
    """Scoring adds up in float64, which Apple's GPU refuses: first the move, then the conversion."""
    arrived: list[torch.Tensor] = []
    plain = {name: getattr(torch.Tensor, name) for name in ("cpu", "double", "to")}
    refusal = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."

    def cpu(self):
        arrived.append(plain["cpu"](self))
        return arrived[-1]

    def double(self):
        if not any(self is tensor for tensor in arrived):
            raise TypeError(refusal)
        return plain["double"](self)

    def to(self, *words, **keywords):
        if words and isinstance(words[0], torch.Tensor) and words[0].dtype == torch.float64:
            raise TypeError(refusal)
        return plain["to"](self, *words, **keywords)

    for name, replacement in {"cpu": cpu, "double": double, "to": to}.items():
        monkeypatch.setattr(torch.Tensor, name, replacement)
    trained = train(small(train__max_steps=2), rows)
    assert trained.validation_loss is not None
    config = changed(small(), evaluate__device="cpu", evaluate__precision="fp32")
    result = evaluate(config, rows, models=[trained.run])
    assert result.models[0].texts[0].bits_per_byte > 0
