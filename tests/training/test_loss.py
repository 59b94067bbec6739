"""The chunked loss equals the plain one, and packed documents stay apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from pretrain_cli.model.probes import head_is_plain
from pretrain_cli.training.step import loss as module
from pretrain_cli.training.step.loss import IGNORED, attach_loss, chunked_cross_entropy
from tests.support.tiny import make_model


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("chunk", [64, 1 << 22])
def test_chunked_loss_and_gradients_equal_those_of_whole_logits(monkeypatch, chunk: int, z_loss: float) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk * 8)
    monkeypatch.setattr(module, "LEAST_CHUNK_ROWS", 1)
    torch.manual_seed(0)
    hidden = torch.randn(50, 16, requires_grad=True)
    weight = torch.randn(97, 16, requires_grad=True)
    labels = torch.randint(0, 97, (50,))
    labels[::7] = IGNORED
    total, penalty, _ = chunked_cross_entropy(hidden, weight, labels, z_loss)
    (total * 0.3).backward()
    found = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    logits = F.linear(hidden, weight)
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    expected_penalty = z_loss * torch.logsumexp(logits, -1)[labels != IGNORED].square().sum()
    ((plain + expected_penalty) * 0.3).backward()
    assert total.item() == pytest.approx((plain + expected_penalty).item(), rel=1e-5)
    assert penalty.item() == pytest.approx(expected_penalty.item(), rel=1e-4)
    torch.testing.assert_close(found[0], hidden.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], weight.grad, rtol=1e-4, atol=1e-5)


def test_under_bf16_autocast_the_chunked_loss_stays_close() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 32, requires_grad=True), torch.randn(80, 32, requires_grad=True)
    labels = torch.randint(0, 80, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        total, *_ = chunked_cross_entropy(hidden, weight, labels)
    total.backward()
    plain = F.cross_entropy(F.linear(hidden, weight), labels, reduction="sum")
    assert total.dtype == torch.float32 and total.item() == pytest.approx(plain.item(), rel=1e-2)
    assert torch.isfinite(weight.grad).all() and weight.grad.dtype == torch.float32


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    with torch.no_grad():
        total, *_ = chunked_cross_entropy(hidden, weight, torch.tensor([1, 2, IGNORED, 3]))
    assert not total.requires_grad


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_attached_loss_is_the_models_own(tmp_path, family: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / family, family))
    ids = torch.randint(3, 200, (2, 12))
    expected = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert head_is_plain(model)
    for chunked in (True, False):
        detach = attach_loss(model, chunked, 0.0)
        assert model(input_ids=ids, labels=ids)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        detach()
    assert model(input_ids=ids, use_cache=False).logits.shape == (2, 12, model.config.vocab_size)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_packed_documents_logits_equal_those_of_the_document_alone(tmp_path, family: str) -> None:
    """Silently lost with an attention mask or a cache: this is the way attach_loss calls the model."""
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / family, family)).train()
    first, second = torch.randint(3, 200, (1, 7)), torch.randint(3, 200, (1, 9))
    positions = torch.cat([torch.arange(7), torch.arange(9)])[None]
    with torch.no_grad():
        packed = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits
        alone = model(input_ids=second, use_cache=False).logits
        unmasked = model(input_ids=torch.cat([first, second], 1), use_cache=False).logits
    torch.testing.assert_close(packed[:, 7:], alone, rtol=1e-4, atol=1e-5)
    assert (unmasked[:, 7:] - alone).abs().max() > 1e-3


def test_training_sees_documents_apart(tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model", "qwen3"))
    first, second = torch.randint(3, 200, (1, 7)), torch.randint(3, 200, (1, 9))
    ids = torch.cat([first, second], 1)
    labels = ids.clone()
    labels[0, 0] = labels[0, 7] = IGNORED
    alone = [model(input_ids=part, labels=part, use_cache=False).loss * (part.shape[1] - 1) for part in (first, second)]
    attach_loss(model, True, 0.0)
    positions = torch.cat([torch.arange(7), torch.arange(9)])[None]
    packed = model(input_ids=ids, labels=labels, position_ids=positions)["total"]
    assert packed.item() == pytest.approx(sum(alone).item(), rel=1e-4)
