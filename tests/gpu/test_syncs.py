"""Nothing in a micro-batch waits for the GPU, and a step asks it for figures once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.model import varlen
from pretrain_cli.training import trainer
from pretrain_cli.training.choices.recipe import Rates
from pretrain_cli.training.run import train
from pretrain_cli.training.step import loss as losses
from pretrain_cli.training.step.loss import IGNORED, attach_loss, chunked_cross_entropy, whole_cross_entropy
from pretrain_cli.training.step.numbers import numbers
from pretrain_cli.training.step.optimizers import make_optimizer
from pretrain_cli.training.step.teachers import Lesson
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.packed_batch import model_and_batch, without_mask
from tests.support.runs import small

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.is_nonzero, aten.equal, aten._unique2}
"""On a GPU each of them waits for all that was computed before: item(), bool(), float(), nonzero(), x[mask]."""


class Waits(TorchDispatchMode):
    """Notes what would wait for a GPU, and what would be computed in float64, which few of them have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, words: Any = (), keywords: Any = None) -> Any:
        masks = [index for index in words[1] if index is not None] if function.overloadpacket is aten.index else []
        if function.overloadpacket in WAITS or any(index.dtype == torch.bool for index in masks):
            self.found.append(str(function))
        out = function(*words, **(keywords or {}))
        if isinstance(out, Tensor) and out.dtype == torch.float64:
            self.found.append(f"{function} in float64")
        return out


@pytest.fixture
def queued(monkeypatch) -> None:
    """The loss takes the CPU for a GPU."""
    monkeypatch.setattr(losses, "_is_queued", lambda tensor: True)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("attention", [varlen.NAME, "sdpa"])
def test_nothing_in_a_step_waits(queued, monkeypatch, attention: str, chunked: bool, optimizer: str) -> None:
    """Forward, backward, the gradient's norm and the weights' move; with sdpa transformers looks for packed rows."""
    monkeypatch.setattr(varlen, "varlen_attn", without_mask)
    varlen.register()
    model, batch = model_and_batch(attention)
    attach_loss(model, chunked, 1e-4)
    moving = make_optimizer(model, optimizer, TrainConfig(), Rates(main=1e-2, matrix=4e-2, embedding=1e-1))
    for _ in range(2):  # the first makes the optimizer's state
        with Waits() as waits:
            model(**batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            moving.step()
        assert waits.found == (["aten._local_scalar_dense.default"] if attention == "sdpa" else [])


@pytest.mark.parametrize("taught", [False, True])
def test_rows_that_count_nothing_give_the_loss_of_those_left_out(monkeypatch, taught: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, 8, generator=generator), torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 50, (40,), generator=generator).masked_fill(torch.arange(40) % 3 == 0, IGNORED)
    logits = torch.randn(40, 50, generator=generator)
    lesson = Lesson((lambda places: logits.index_select(0, places),), 0.3) if taught else None

    def found() -> tuple[Tensor, ...]:
        hidden, weight = (tensor.clone().requires_grad_() for tensor in start)
        sums = chunked_cross_entropy(hidden, weight, labels, 1e-2, lesson)
        sums.total.backward()
        return *sums, hidden.grad, weight.grad

    left_out = found()
    monkeypatch.setattr(losses, "_is_queued", lambda tensor: True)
    monkeypatch.setattr(losses, "chunk_rows", lambda *sizes: 16)
    for one, other in zip(found(), left_out, strict=True):
        torch.testing.assert_close(one, other)
    hidden, weight = (tensor.clone().requires_grad_() for tensor in start)
    for one, other in zip(whole_cross_entropy(hidden @ weight.t(), labels, 1e-2, lesson), left_out[:3], strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_asks_for_its_figures_once_and_copies_of_pinned_batches_are_queued(rows, monkeypatch) -> None:
    asked, copied, kept = [], [], []
    plain_to, plain_norm = torch.Tensor.to, PackedTrainer._get_grad_norm

    def noted(*values: Any) -> list[float]:
        asked.append(len(values))
        return numbers(*values)

    def to(self, *words, **keywords):
        copied.append(keywords.pop("non_blocking", False))
        return plain_to(self, *words, **keywords)

    def norm(self, *words, **keywords):
        kept[:] = [self.accelerator.ddp_handler.gradient_as_bucket_view]
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
        monkeypatch.setattr(torch.Tensor, "to", to)
        copied.clear()
        self._prepare_inputs({"input_ids": torch.zeros(1)})
        monkeypatch.setattr(torch.Tensor, "to", plain_to)
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: False)
        return plain_norm(self, *words, **keywords)

    monkeypatch.setattr(trainer, "numbers", noted)
    monkeypatch.setattr(PackedTrainer, "_get_grad_norm", norm)
    train(small(train__max_steps=2, train__gradient_accumulation=2, train__eval_steps=0), rows)
    assert asked == [2, 2] and copied == [True] and kept == [True]
    assert numbers(torch.tensor(2.0), 3.0, torch.tensor(0.5)) == [2.0, 3.0, 0.5] and numbers(1.0) == [1.0]
