"""A GPU whose memory runs out: the same batch in smaller pieces, or two lines that say what to try."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import OutOfMemoryError
from pretrain_cli.memory import is_out_of_memory
from pretrain_cli.training.choices import compilation
from pretrain_cli.training.choices.compilation import CompiledBody
from pretrain_cli.training.run import train
from pretrain_cli.training.step import optimizers
from tests.support.runs import Heard, course, small

TOLD = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB."
BATCH = {"train__micro_batch": 8, "train__gradient_accumulation": 2, "train__max_steps": 5}


@pytest.fixture
def limit(monkeypatch) -> Callable[..., list[int]]:
    """A memory that holds so many rows: more fail in the model's forward pass, or in the middle of its backward."""

    def set_to(rows: int, backward: bool = False, after: int = 0, training: bool = True) -> list[int]:
        plain, seen = PreTrainedModel.__call__, []

        def forward(self, *words, **keywords):
            many = len(keywords["input_ids"]) if "input_ids" in keywords else 0
            if self.training is training and "labels" in keywords:
                seen.append(many)
                if many > rows and len(seen) > after:
                    if not backward:
                        raise torch.OutOfMemoryError(TOLD)
                    found = plain(self, *words, **keywords)
                    next(iter(self.parameters())).register_hook(_fail)
                    return found
            return plain(self, *words, **keywords)

        monkeypatch.setattr(PreTrainedModel, "__call__", forward)
        return seen

    return set_to


def _fail(gradient: torch.Tensor) -> None:
    raise torch.OutOfMemoryError(TOLD)


def losses(rows: Artifacts, run: str) -> list[float]:
    return [line["loss"] for line in course(rows.run(run))]


@pytest.fixture(scope="module")
def calm(rows: Artifacts) -> list[float]:
    return losses(rows, train(small(**BATCH), rows).run)


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_the_micro_batch_is_halved_and_the_batch_and_losses_stay_the_same(rows, calm, limit, after: int) -> None:
    """From the first micro-batch on, or in the second one of a step: then the step's first is computed again too."""
    limit(2, after=after)
    heard = Heard()
    result = train(small(**BATCH), rows, heard)
    assert result.status == "finished" and result.steps == 5
    assert losses(rows, result.run) == pytest.approx(calm, abs=1e-5)
    said = [text for text in heard.warnings if "memory" in text]
    assert len(said) == 1 and "2 rows at once instead of 8" in said[0] and "stay the same" in said[0], heard.warnings


@pytest.mark.slow
def test_gradients_of_a_backward_pass_that_failed_half_way_are_not_counted(rows, calm, monkeypatch) -> None:
    plain, failed = torch.Tensor.backward, []

    def backward(self, *words, **keywords):
        plain(self, *words, **keywords)  # all gradients are there, and none may stay
        if len(failed) < 2:
            failed.append(1)
            raise torch.OutOfMemoryError(TOLD)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    result = train(small(**BATCH), rows)
    assert len(failed) == 2
    assert losses(rows, result.run) == pytest.approx(calm, abs=1e-5)


@pytest.mark.slow
def test_a_validation_that_does_not_fit_takes_fewer_rows_at_once(rows, limit) -> None:
    plain = train(small(**BATCH), rows)
    seen = limit(2, training=False)
    result = train(small(**BATCH), rows)
    assert max(seen) == 8 and min(seen) <= 2
    assert result.validation_loss == pytest.approx(plain.validation_loss, abs=1e-5)


def test_one_row_that_does_not_fit_ends_in_two_lines_that_say_what_to_try(rows, limit) -> None:
    limit(0)
    with pytest.raises(OutOfMemoryError, match="no room for one row of 32 tokens at once") as caught:
        train(small(**BATCH), rows)
    assert caught.value.exit_code == 4 and "Tried to allocate 2.00 GiB" in caught.value.message
    for way in ("train.gradient_checkpointing=true", "train.precision=bf16-weights", "--sequence-length"):
        assert way in caught.value.hint


@pytest.mark.slow
def test_an_update_that_does_not_fit_names_smaller_optimizers(rows, monkeypatch) -> None:
    def step(*words: object) -> None:
        raise torch.OutOfMemoryError(TOLD)

    monkeypatch.setattr(optimizers.MuonAdamW, "_muon", step)
    # Where the sizes are timed first, that fails in the same words.
    for config in (small(**BATCH), small(**BATCH, train__chunked_loss=False)):
        with pytest.raises(OutOfMemoryError) as caught:
            train(config, rows)
        assert "train.optimizer=" in caught.value.hint


def test_no_memory_is_not_reported_as_a_model_that_can_not_be_compiled(monkeypatch) -> None:
    said: list[str] = []

    class Body(torch.nn.Module):
        def forward(self, **inputs):
            return "as it is"

    def compiled(body, dynamic):
        def run(**inputs):
            raise torch.OutOfMemoryError(TOLD)

        return run

    monkeypatch.setattr(compilation.torch, "compile", compiled)
    model = torch.nn.Module()
    model.base_model = Body()
    body = CompiledBody(model, said.append)  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        body(input_ids=None)
    assert not said


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError(TOLD), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.1 GB, max allowed: 9 GB)"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_what_running_out_of_memory_looks_like(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short
