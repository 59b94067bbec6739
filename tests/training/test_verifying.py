"""A step that is computed again gives the same bits, or the run says so and goes on with what two of three agree on."""

from __future__ import annotations

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.training.run import train
from pretrain_cli.training.step.divergence import Guard
from pretrain_cli.training.step.verifying import digest
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.runs import Heard, course, small, weights_equal

SETTINGS = {"train__max_steps": 6, "train__gradient_accumulation": 2, "train__eval_steps": 0}


def disturbed(monkeypatch: pytest.MonkeyPatch, disturb, calls: range) -> list[int]:
    """Let ``disturb(trainer)`` follow these backward passes; how many there were."""
    plain, count = PackedTrainer._backward, [0]

    def backward(self, *words):
        loss = plain(self, *words)
        if count[0] in calls:
            disturb(self)
        count[0] += 1
        return loss

    monkeypatch.setattr(PackedTrainer, "_backward", backward)
    return count


def flip(trainer: PackedTrainer) -> None:
    """One bit of one gradient, the lowest."""
    gradient = trainer.model.get_output_embeddings().weight.grad
    gradient.view(torch.int32)[3, 1] ^= 1


@pytest.mark.slow
def test_what_is_verified_is_what_was_trained_before(rows: Artifacts, monkeypatch) -> None:
    train(small(**SETTINGS), rows, run_name="as-it-was")
    for name, verify, disturb, calls, computed, told in (
        ("verified", 2, None, range(0), 12 + 3 * 2, []),
        ("flipped", 2, flip, range(9, 10), 12 + 4 * 2, ["Step 4 gave other bits", "two of three results agree"]),
        ("suspicious", 100, never_finite, range(9, 10), 12 + 2 * 2, ["Step 5 gave other bits", "(1 of "]),
    ):
        with monkeypatch.context() as patch:
            count, heard = disturbed(patch, disturb, calls), Heard()
            train(small(**SETTINGS, train__verify_steps=verify), rows, heard, run_name=name)
        assert count == [computed], name
        assert all(any(words in text for text in heard.warnings) for words in told), heard.warnings
        assert len(heard.warnings) == bool(told), heard.warnings
        same = (rows.run(name), rows.run("as-it-was"))
        assert weights_equal(*same) and course(same[0]) == course(same[1]), name


def never_finite(trainer: PackedTrainer) -> None:
    trainer._step_loss = trainer._step_loss * float("nan")


def test_a_device_that_never_repeats_itself_is_told_once(rows: Artifacts, monkeypatch) -> None:
    def drift(trainer: PackedTrainer) -> None:
        weight = trainer.model.get_output_embeddings().weight
        weight.grad += 1e-3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(count[0]))

    count, heard = disturbed(monkeypatch, drift, range(99)), Heard()
    train(small(**SETTINGS, train__verify_steps=2), rows, heard)
    assert len(heard.warnings) == 1 and "no step can be verified" in heard.warnings[0]
    assert count == [12 + 2 * 2]


def test_dropout_is_the_same_when_a_step_is_computed_again(rows: Artifacts, monkeypatch) -> None:
    plain, heard = PackedTrainer.compute_loss, Heard()

    def dropped(self, model, inputs, *words, **keywords):
        loss = plain(self, model, inputs, *words, **keywords)
        return loss * torch.nn.functional.dropout(torch.ones(()), 0.5) + loss

    monkeypatch.setattr(PackedTrainer, "compute_loss", dropped)
    train(small(**SETTINGS, train__verify_steps=1), rows, heard)
    assert not heard.warnings


def test_any_flipped_bit_changes_the_digest_and_a_suspicious_loss_is_one_far_above() -> None:
    layer, loss = torch.nn.Linear(3, 2), torch.tensor(1.5)
    for weight in layer.parameters():
        weight.grad = torch.randn_like(weight)
    before = digest(layer, loss)
    for bit in range(32):
        layer.bias.grad.view(torch.int32)[1] ^= -(2**31) if bit == 31 else 1 << bit
        assert digest(layer, loss) != before
        layer.bias.grad.view(torch.int32)[1] ^= -(2**31) if bit == 31 else 1 << bit
    assert digest(layer, loss) == before
    guard = Guard([2.0] * 20)
    assert guard.suspects(float("nan")) and guard.suspects(4.0) and not guard.suspects(3.0)
    assert not Guard([]).suspects(99.0) and Guard([]).suspects(float("inf"))
