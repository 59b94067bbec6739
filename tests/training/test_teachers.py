"""A student learns from teachers: the loss is the mixed one, in chunks, and a run with them is exact and guarded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ConfigError, DataError, ModelError
from pretrain_cli.model.probes import head_is_plain
from pretrain_cli.storage import read_lines
from pretrain_cli.training.run import train
from pretrain_cli.training.step import loss as module
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.teachers import Teacher, Teachers
from tests.support.launching import furthest, trained
from tests.support.runs import Heard, PowerCut, course, cut, prepare_text, small, weights_equal
from tests.support.tiny import make_model


def teacher(model: PreTrainedModel, plain: bool = True) -> Teacher:
    return Teacher("teacher", model.eval().requires_grad_(False), plain, True, "id")


def opened(folder: Path, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_pretrained(make_model(folder / str(seed), "llama"))


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_and_its_gradients_mix_the_text_and_the_teachers_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool, plain: bool, weight: float
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(module, "LEAST_CHUNK_ROWS", 3)
    student, first, second = (opened(tmp_path, seed) for seed in (0, 1, 2))
    assert head_is_plain(first)
    with torch.no_grad():
        for model, factor in ((first, 3.0), (second, 0.5)):
            model.get_input_embeddings().weight.mul_(factor)
    ids = torch.randint(3, 200, (2, 12))
    labels = ids.clone()
    labels[0, 4:6] = -100
    positions = torch.arange(6).repeat(2, 2)
    wanted = F.pad(labels[:, 1:], (0, 1), value=-100).reshape(-1)
    kept = wanted != -100
    logits = student(ids, position_ids=positions, use_cache=False).logits.reshape(len(wanted), -1)[kept]
    with torch.no_grad():
        given = [model(ids, position_ids=positions, use_cache=False).logits for model in (first, second)]
    target = torch.stack([torch.softmax(each.reshape(len(wanted), -1)[kept], -1) for each in given]).mean(0)
    text = F.cross_entropy(logits, wanted[kept])
    expected = (1 - weight) * text - weight * (target * torch.log_softmax(logits, -1)).sum(-1).mean()
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}
    student.zero_grad(set_to_none=True)

    teachers = Teachers((teacher(first, plain), teacher(second, plain)), weight)
    detach = attach_loss(student.train(), chunked, 0.0, teachers=teachers)
    found = student(input_ids=ids, labels=labels, position_ids=positions)
    found["loss"].backward()
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["text_loss"].item() == pytest.approx(text.item(), rel=1e-5)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        student.eval()
        assert student(input_ids=ids, labels=labels, position_ids=positions)["total"].item() == pytest.approx(
            text.item() * int(kept.sum()), rel=1e-5
        ), "validation scores the text alone"
    detach()


@pytest.fixture(scope="module")
def taught(rows: Artifacts) -> Artifacts:
    train(small(train__max_steps=40), rows, run_name="teacher")
    return rows


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_and_a_cut_run_resumes_exactly(taught: Artifacts) -> None:
    config = small(
        train__max_steps=12, train__save_steps=5, train__eval_steps=5, train__teacher=("teacher",), train__seed=1
    )
    heard = Heard()
    result = train(config, taught, heard, run_name="student")
    assert "teacher teacher: 70% of the loss follows its distribution" in heard.notes
    train(small(train__max_steps=12, train__save_steps=5, train__eval_steps=5, train__seed=1), taught, run_name="alone")
    assert not weights_equal(taught.run("student"), taught.run("alone"))
    first = read_lines(taught.run("student").metrics)[0]["loss"]
    assert first == pytest.approx(math.log(400), rel=0.1), "the logged loss is the text's own"
    with pytest.raises(PowerCut):
        train(config, taught, Heard(step_8=cut), run_name="cut")
    train(small(), taught, resume="cut")
    assert weights_equal(taught.run("student"), taught.run("cut"))
    assert course(taught.run("student")) == course(taught.run("cut"))
    assert AutoModelForCausalLM.from_pretrained(result.model) is not None


@pytest.mark.slow
def test_a_resume_with_a_teacher_that_was_trained_on_is_refused(taught: Artifacts) -> None:
    train(small(train__max_steps=4), taught, run_name="changing")
    config = small(train__max_steps=12, train__save_steps=5, train__eval_steps=5, train__teacher=("changing",))
    with pytest.raises(PowerCut):
        train(config, taught, Heard(step_8=cut), run_name="depends")
    train(small(train__max_steps=6), taught, resume="changing")
    with pytest.raises(DataError, match="was trained with teachers"):
        train(small(), taught, resume="depends")


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one_does(taught: Artifacts) -> None:
    more = ("--teacher", "teacher, teacher")
    one = trained(taught, "one-taught", *more)
    assert furthest(one, trained(taught, "two-taught", *more, "--processes", "2")) < 1e-3


def test_a_teacher_with_another_tokenizer_is_refused_and_one_that_is_not_there(
    prepared: Artifacts, tmp_path: Path, prose: str
) -> None:
    other = prepare_text(tmp_path / "other", prose[:24_000], tokenizer__vocab_size=300)
    made = train(small(train__max_steps=1), other, run_name="other")
    with pytest.raises(ConfigError, match="another tokenizer than the prepared rows"):
        train(small(train__max_steps=1, train__teacher=(str(made.model),)), prepared, run_name="refused")
    with pytest.raises(ModelError, match="'nobody' is not a run"):
        train(small(train__max_steps=1, train__teacher=("nobody",)), prepared, run_name="refused")
    assert "refused" not in prepared.run_names()
