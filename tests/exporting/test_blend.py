"""One model of the weights of several: exact sums, streamed, refused where they don't fit each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ModelError, PtkError, UsageError
from pretrain_cli.exporting.blend import blend
from pretrain_cli.model import blending
from pretrain_cli.model.growing import grow_model
from pretrain_cli.storage import write_json
from pretrain_cli.tokenizer.extend import extend_tokenizer
from pretrain_cli.tokenizer.load import EXTENSION, read_tokenizer
from tests.support.tiny import make_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blended")
    for seed, name in enumerate(("base", "run", "instruct")):
        make_model(folder / name, seed=seed)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def blended(models: Path, tmp_path: Path, first: str, second: str | None = None, **settings: Any) -> Path:
    names = {"first": str(models / first), "second": str(models / second) if second else None}
    if "difference" in settings:
        settings["difference"] = tuple(str(models / name) for name in settings["difference"])
    return blend(Artifacts(tmp_path / "artifacts"), **names, **settings).model


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_a_point_between_two_models_is_their_weighted_mean(models: Path, tmp_path: Path, weight: float) -> None:
    made = weights(blended(models, tmp_path, "base", "run", weight=weight))
    one, other = weights(models / "base"), weights(models / "run")
    assert made.keys() == one.keys()
    for name, tensor in made.items():
        assert torch.allclose(tensor, (1 - weight) * one[name] + weight * other[name], atol=1e-6)
        assert tensor.dtype == one[name].dtype


def test_a_difference_is_added_and_the_result_opens_and_says_what_it_is_made_of(models: Path, tmp_path: Path) -> None:
    folder = blended(models, tmp_path, "run", difference=("instruct", "base"), weight=0.5)
    made, run = weights(folder), weights(models / "run")
    instruct, base = weights(models / "instruct"), weights(models / "base")
    for name, tensor in made.items():
        assert torch.allclose(tensor, run[name] + 0.5 * (instruct[name] - base[name]), atol=1e-6)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model(**tokenizer("Call me", return_tensors="pt")).logits.isfinite().all()
    card = (folder / "README.md").read_text()
    assert "| +1 | `run` |" in card and "| +0.5 | `instruct` |" in card and "| -0.5 | `base` |" in card


def test_a_run_without_a_chat_template_gets_that_of_the_instruct_model(models: Path, tmp_path: Path) -> None:
    instruct = shutil.copytree(models / "instruct", tmp_path / "taught")
    (instruct / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    folder = blended(models, tmp_path, "run", difference=(str(instruct), "base"))
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"


def test_large_models_are_written_in_several_files_that_open_alike(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(blended(models, tmp_path / "whole", "base", "run", weight=0.3))
    monkeypatch.setattr(blending, "SHARD_BYTES", 20_000)
    folder = blended(models, tmp_path / "parts", "base", "run", weight=0.3)
    assert len(list(folder.glob("*.safetensors"))) > 2
    parts = weights(folder)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    AutoModelForCausalLM.from_pretrained(folder)


def test_no_more_than_a_file_and_a_tensor_of_each_model_are_held(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is let go of: the tensors of the models that live at once stay a few."""
    import gc
    import weakref

    living: list[weakref.ref[torch.Tensor]] = []
    most = 0
    read = blending._Reader.read

    def counted(self: Any, name: str) -> torch.Tensor:
        nonlocal most
        tensor = read(self, name)
        living.append(weakref.ref(tensor))
        gc.collect()
        most = max(most, sum(each() is not None for each in living))
        return tensor

    monkeypatch.setattr(blending._Reader, "read", counted)
    monkeypatch.setattr(blending, "SHARD_BYTES", 20_000)
    blended(models, tmp_path, "base", "run", weight=0.3)
    assert most <= 6 < len(living)


def extended(models: Path, folder: Path) -> Path:
    """``run`` with 40 entries more."""
    shutil.copytree(models / "run", folder)
    made = extend_tokenizer(folder, "run", ["kaikki ihmiset syntyvät vapaina ja tasavertaisina " * 50], 40)
    write_json(folder / EXTENSION, {"first": made.first, "added": made.added})
    model = AutoModelForCausalLM.from_pretrained(models / "run")
    grow_model(model, read_tokenizer(folder), "mean", 64, "run")
    model.save_pretrained(folder)
    return folder


def test_a_vocabulary_that_grew_lines_up_with_the_base_that_it_grew_from(models: Path, tmp_path: Path) -> None:
    grown = extended(models, tmp_path / "grown")
    for folder, expected in (
        (blended(models, tmp_path, "base", str(grown), weight=0.5), lambda one, two: (one + two) / 2),
        (
            blended(models, tmp_path, str(grown), difference=("instruct", "base")),
            lambda one, two: two + weights(models / "instruct")["model.embed_tokens.weight"] - one,
        ),
    ):
        made = weights(folder)["model.embed_tokens.weight"]
        one, two = (weights(each)["model.embed_tokens.weight"] for each in (models / "base", grown))
        assert torch.allclose(made[: len(one)], expected(one, two[: len(one)]), atol=1e-6)
        assert torch.allclose(made[len(one) :], two[len(one) :], atol=1e-6)
        assert read_tokenizer(folder).vocab_size == read_tokenizer(grown).vocab_size


def refused(models: Path, tmp_path: Path, *names: str, **settings: Any) -> str:
    with pytest.raises(PtkError) as told:
        blended(models, tmp_path, *names, **settings)
    assert told.value.hint and "\n" not in told.value.message + told.value.hint
    assert not (tmp_path / "artifacts" / "exports").exists() or not list((tmp_path / "artifacts" / "exports").iterdir())
    return told.value.message


def test_models_that_do_not_fit_are_refused_before_anything_is_written(models: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "wide", hidden_size=48)
    assert "compute differently: hidden_size" in refused(models, tmp_path, "base", str(tmp_path / "wide"))
    make_model(tmp_path / "deep", num_hidden_layers=3)
    assert "num_hidden_layers" in refused(models, tmp_path, "base", str(tmp_path / "deep"))
    make_model(tmp_path / "other", "qwen3")
    assert "compute differently" in refused(models, tmp_path, "base", str(tmp_path / "other"))
    lost = shutil.copytree(models / "run", tmp_path / "lost")
    tensors = load_file(lost / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, lost / "model.safetensors", metadata={"format": "pt"})
    assert "lost has no tensor model.norm.weight" in refused(models, tmp_path, "base", str(lost))


def test_tokenizers_that_do_not_line_up_are_refused(models: Path, tmp_path: Path) -> None:
    other = shutil.copytree(models / "run", tmp_path / "other")
    spec = json.loads((other / "tokenizer.json").read_text())
    names = list(spec["model"]["vocab"])
    a, b = names[300], names[301]
    vocabulary = spec["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (other / "tokenizer.json").write_text(json.dumps(spec))
    assert "don't line up" in refused(models, tmp_path, "base", str(other))
    # Two vocabularies that grew from one base, each for its own text.
    one = extended(models, tmp_path / "one")
    two = shutil.copytree(models / "run", tmp_path / "two")
    extend_tokenizer(two, "run", ["Все люди рождаются свободными и равными " * 50], 40)
    assert "don't line up" in refused(models, tmp_path, str(one), str(two))


def test_what_is_missing_from_the_command_is_said(models: Path, tmp_path: Path) -> None:
    assert "nothing to blend with" in refused(models, tmp_path, "base")
    assert "not both" in refused(models, tmp_path, "base", "run", difference=("instruct", "base"))
    with pytest.raises(ModelError, match="'none' is not a run"):
        blend(Artifacts(tmp_path / "artifacts"), first="none", second=str(models / "run"))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="would be lost"):
        blended(models, tmp_path, "base", "run", output=taken)


def test_an_infinite_weight_is_refused(models: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(models / "run", tmp_path / "bad")
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"][0] = float("inf")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    assert "infinite" in refused(models, tmp_path, "base", str(bad))


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e300, -1e17])
def test_a_weight_in_which_the_other_model_drowns_is_refused(models: Path, tmp_path: Path, weight: float) -> None:
    with pytest.raises(UsageError, match="can't be used"):
        blended(models, tmp_path, "base", "run", weight=weight)
