"""GPUs without bf16 train in fp16: a loss scale that finds itself, and no divergence where it does."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import DivergedError
from pretrain_cli.model.devices import choose_precision
from pretrain_cli.planning.accelerators import parse_machine
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.run import train
from tests.support.runs import Heard, course, small


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32"), ((8, 0), "bf16")]
)
def test_tensor_cores_without_bf16_take_fp16(gpus, capability: tuple[int, int], chosen: str) -> None:
    gpus(1, capability=capability)
    found = choose_precision("auto", "cuda")
    assert found.value == chosen
    assert choose_precision("auto-weights", "cuda").value == ("bf16-weights" if chosen == "bf16" else chosen)


def test_products_are_timed_in_fp16_and_muon_keeps_fp32() -> None:
    machine = Machine("cuda", "fp16")
    assert machine.matmul_dtype == torch.float16 and machine.newton_schulz_dtype == torch.float32
    assert machine.weights_dtype == torch.float32 and parse_machine("t4").accelerator.rate("fp16") == 65e12
    assert TrainConfig().precision == "auto"


@pytest.fixture
def scaled(monkeypatch):
    """Training with a loss scale that is far too large at first, as on a GPU in fp16."""

    def begin(scale: float, **settings: float) -> list[torch.amp.GradScaler]:
        made: list[torch.amp.GradScaler] = []
        plain = Accelerator.__init__

        def init(self, *words, **keywords):
            plain(self, *words, **keywords)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, **settings)
            made.append(self.scaler)

        def unscale(self, optimizer=None):
            for each in self._optimizers:
                self.scaler.unscale_(each.optimizer)

        monkeypatch.setattr(Accelerator, "__init__", init)
        monkeypatch.setattr(Accelerator, "unscale_gradients", unscale)
        return made

    return begin


def test_a_scale_that_is_too_large_is_halved_and_is_no_divergence(rows, scaled) -> None:
    made = scaled(2.0**127)  # the scaled loss is infinite in fp32
    heard = Heard()
    result = train(small(train__max_steps=30), rows, heard)
    assert result.status == "finished" and 1 < made[-1].get_scale() < 2.0**127
    lines = course(rows.run(result.run))
    assert len(lines) == 30 and lines[-1]["loss"] < lines[0]["loss"]
    assert not any("left out: its loss" in text for text in heard.warnings)
    assert sum("scale of the loss" in text for text in heard.notes) == 1
    assert all("skipped_steps" not in line for line in lines)


def test_a_gradient_that_no_scale_makes_finite_is_a_divergence(rows, scaled, monkeypatch) -> None:
    scaled(4.0)
    plain = torch.Tensor.backward

    def backward(self, *words, **keywords):
        plain(self * float("inf"), *words, **keywords)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    heard = Heard()
    with pytest.raises(DivergedError, match="isn't finite"):
        train(small(train__max_steps=30), rows, heard)
    assert any("left out: its loss" in text for text in heard.warnings)


def test_the_scale_is_kept_in_a_checkpoint(rows, scaled) -> None:
    scaled(2.0**10)
    result = train(small(train__max_steps=4, train__save_steps=2), rows)
    saved = rows.run(result.run).checkpoint(2) / "scaler.pt"
    assert torch.load(saved, weights_only=True)["scale"] == 2.0**10
