"""What the compiler is given: one graph for all batches, whole, without a mask; each layer by itself where need be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from pretrain_cli.data.rows.batches import LENGTHS, document_starts, rows_of
from pretrain_cli.model import varlen
from pretrain_cli.training.choices import compilation
from pretrain_cli.training.choices.compilation import CompiledBody
from pretrain_cli.training.step.loss import attach_loss
from tests.support.packed_batch import model_and_batch, without_mask

BATCHES = 20


@pytest.fixture
def compiler(monkeypatch) -> Iterator[Any]:
    """Captures graphs, and runs them without the C++ compiler; a break in a graph is an error."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compilation, "COMPILER", {"backend": counter, "fullgraph": True})
    monkeypatch.setattr(varlen, "varlen_attn", without_mask)
    varlen.register()
    dynamo.reset()
    yield counter
    dynamo.reset()


def batches(batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Batches with other tokens, and other documents in their rows."""
    generator = torch.Generator().manual_seed(0)
    for number in range(BATCHES):
        at = 1 + number % 22
        positions = torch.cat([torch.arange(at), torch.arange(24 - at)]).repeat(2, 1)
        ids = torch.randint(0, 96, (2, 24), generator=generator)
        yield {**batch, "input_ids": ids, "labels": ids, "position_ids": positions, LENGTHS: document_starts(positions)}


@pytest.mark.slow
@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_graph_without_a_break_or_a_mask_serves_twenty_batches(compiler, by_layer, checkpointing) -> None:
    said: list[str] = []
    model, batch = model_and_batch(varlen.NAME)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    plain = []
    for each in batches(batch):
        detach = attach_loss(model, True, 0.0)
        plain.append(float(model(**each)["loss"].detach()))
        detach()
    attach_loss(model, True, 0.0, CompiledBody(model, said.append, by_layer))
    found = []
    for each in batches(batch):
        loss = model(**each)["loss"]
        loss.backward()
        found.append(float(loss.detach()))
    with torch.no_grad():  # a validation, whose batches are smaller
        rows = rows_of({name: value for name, value in each.items() if value.ndim or name == LENGTHS}, 0, 1)
        model(**rows)
    assert not said and compiler.frame_count == 1
    assert found == pytest.approx(plain, rel=1e-5)
    inputs = [node.meta["example_value"] for node in compiler.graphs[0].graph.nodes if node.op == "placeholder"]
    assert not [value for value in inputs if value.dtype == torch.bool or value.shape[-2:] == (24, 24)]
