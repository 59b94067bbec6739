"""On a GPU the loss is computed in few large chunks, whose bytes are those that the plan counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

from pretrain_cli.training.step import loss as losses
from pretrain_cli.training.step.loss import chunk_rows, chunked_cross_entropy, logit_bytes


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(losses, "chunk_rows", lambda vocabulary, tokens, on_cpu: chunk_rows(vocabulary, tokens, False))


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "chunks"),
    [(32_000, 16_384, 4), (4_096, 32_768, 4), (128_256, 16_384, 8), (50_000, 256, 1)],
)
def test_there_are_four_chunks_or_as_many_as_bound_their_logits(vocabulary: int, tokens: int, chunks: int) -> None:
    rows = chunk_rows(vocabulary, tokens, on_cpu=False)
    assert -(-tokens // rows) == chunks and (4 * rows * vocabulary <= 1 << 30 or rows == 512)
    assert chunk_rows(vocabulary, tokens, on_cpu=True) == max(512, (1 << 22) // vocabulary)


@pytest.mark.parametrize(("vocabulary", "hidden", "tokens"), [(32_000, 2_048, 16_384), (128_256, 4_096, 16_384)])
def test_the_bytes_that_are_counted_are_those_that_are_held(
    as_on_a_gpu, vocabulary: int, hidden: int, tokens: int
) -> None:
    noted = SimpleNamespace(
        needs_input_grad=[True, True], save_for_backward=lambda *tensors: None, mark_non_differentiable=lambda *t: None
    )
    with FakeTensorMode():
        read, head = torch.empty(tokens, hidden, dtype=torch.bfloat16), torch.empty(vocabulary, hidden)
        labels = torch.empty(tokens, dtype=torch.int64)
        tracker = MemTracker()
        tracker.track_external(read, head, labels)
        given = sum(tensor.untyped_storage().nbytes() for tensor in (read, head, labels))
        with tracker, torch.autocast("cpu", torch.bfloat16):
            losses._ChunkedCrossEntropy.forward(noted, read, head, labels, None, None, 0.0, None, True)
        peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    held = next(size for kind, size in peak.items() if str(kind) == "Total") - given
    counted = logit_bytes(vocabulary, hidden, tokens, on_cpu=False)
    assert held < counted < 1.5 * held
    assert held < 0.3 * 12 * tokens * vocabulary


def test_large_chunks_give_the_loss_and_gradients_of_whole_logits(as_on_a_gpu, monkeypatch) -> None:
    monkeypatch.setattr(losses, "LEAST_CHUNK_ROWS", 1)
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16, requires_grad=True), torch.randn(97, 16, requires_grad=True)
    labels = torch.randint(0, 97, (50,))
    found = torch.autograd.grad(chunked_cross_entropy(hidden, weight, labels).total, (hidden, weight))
    wanted = torch.autograd.grad(F.cross_entropy(F.linear(hidden, weight), labels, reduction="sum"), (hidden, weight))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
