"""A base in an older form is trained, scored and continued; one that can't be trained is refused at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import check_trainable, find_base, whole_name
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ModelError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.names import find_model, open_folders
from pretrain_cli.storage import read_json
from pretrain_cli.training.run import train
from tests.support.runs import prepare_text, record_of, small
from tests.support.tiny import SAMPLE, make_model


def in_older_files(folder: Path) -> Path:
    """vocab.json and merges.txt for tokenizer.json, two pickles and their index for the weights."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(spec["vocab"]), encoding="utf-8")
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in spec["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<|eos|>"}))
    (folder / "tokenizer.json").unlink()
    weights = load_file(folder / "model.safetensors")
    parts = [dict(list(weights.items())[at::2]) for at in (0, 1)]
    names = [f"pytorch_model-0000{at}-of-00002.bin" for at in (1, 2)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name)
    index = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(params=["llama", "gpt2"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield in_older_files(make_model(tmp_path / "older", request.param))


@pytest.mark.slow
def test_the_road_is_walked_from_older_files(older: Path, tmp_path: Path) -> None:
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(older))
    trained = train(small(model__base=str(older), train__max_steps=1), artifacts)
    scored = evaluate(changed(Config(), evaluate__on=("validation",)), artifacts)
    assert [model.name for model in scored.models] == [trained.run, "base"]
    assert export(artifacts, run=str(older)).checked == "opened with transformers"


def test_text_is_written_from_older_files_with_the_same_ids(older: Path, tmp_path: Path) -> None:
    expected = Tokenizer.from_file(str(make_model(tmp_path / "same", "llama") / "tokenizer.json"))
    artifacts = Artifacts(tmp_path / "artifacts")
    written = generate(changed(Config(), generate__max_tokens=5), artifacts, prompts=["Call"], model=str(older))
    assert written.samples[0].tokens
    _, folder = open_folders(find_model(str(older), artifacts), artifacts)
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode(SAMPLE).ids == expected.encode(SAMPLE).ids
    assert not (older / "tokenizer.json").exists()


def make_sentencepiece_base(folder: Path) -> Any:
    """A Llama whose tokenizer is a SentencePiece model alone."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir()
    text = folder / "text.txt"
    text.write_text(SAMPLE * 20, encoding="utf-8")
    settings = {"vocab_size": 350, "model_type": "bpe", "byte_fallback": True, "character_coverage": 0.99}
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=9, **settings,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    make_model(folder.parent / "shape", vocab_size=model.vocab_size(), bos_token_id=1, eos_token_id=2)
    for name in ("config.json", "model.safetensors"):
        (folder.parent / "shape" / name).rename(folder / name)
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_sentencepiece_model_gives_its_own_ids(tmp_path: Path) -> None:
    own = make_sentencepiece_base(tmp_path / "base")
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(tmp_path / "base"))
    made = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    for text in (SAMPLE, "The sea", "two  spaces\tand\nlines", "日本語 🐋"):
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == own.encode(text)
        assert made.decode(ids) == text


def test_a_base_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base="models/mine")
    assert read_manifest(artifacts).base == str(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path / "data")
    trained = train(small(train__max_steps=1), artifacts)
    run = artifacts.run(trained.run)
    assert record_of(run).base == str(tmp_path / "models" / "mine")
    again = small(train__max_steps=2, model__base="../models/mine")
    assert train(again, artifacts, resume=trained.run).steps == 2


def test_what_is_not_a_path_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert [whole_name(name) for name in ("", "smollm2", "owner/name")] == ["", "smollm2", "owner/name"]


QUANTISED = [
    ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
    ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
    ({"quant_method": "fp8"}, "fp8"),
]


@pytest.mark.parametrize(("rounded", "told"), QUANTISED)
def test_rounded_weights_are_refused_before_anything_is_prepared(
    tmp_path: Path, rounded: dict[str, Any], told: str
) -> None:
    base = make_model(tmp_path / "base")
    config = read_json(base / "config.json")
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": rounded}))
    with pytest.raises(ModelError, match=told):
        prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))
    assert not (tmp_path / "data" / "artifacts" / "tokenizer").exists()


@pytest.mark.parametrize("where", ["cached", "asked"])
@pytest.mark.parametrize(("rounded", "told"), QUANTISED)
def test_rounded_weights_of_the_hub_are_refused_by_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounded: dict[str, Any], told: str, where: str
) -> None:
    config = {"model_type": "llama", "quantization_config": rounded}
    cached = tmp_path / "config.json"
    cached.write_text(json.dumps(config))
    found = [str(cached)] if where == "cached" else []
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: found[0] if found else None)
    info = SimpleNamespace(config=config, siblings=[SimpleNamespace(rfilename="config.json")], id="owner/name-rounded")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    with pytest.raises(ModelError, match=f"owner/name-rounded are rounded .{told}") as caught:
        prepare_text(tmp_path / "data", SAMPLE * 20, model__base="owner/name-rounded")
    assert "16 or 32 bits" in caught.value.hint and not (tmp_path / "data" / "artifacts" / "tokenizer").exists()


@pytest.mark.parametrize(
    ("file", "told"), [("model-Q4_K_M.gguf", "holds .gguf files"), ("notes.txt", "no config.json")]
)
def test_a_place_on_the_hub_without_a_config_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, told: str
) -> None:
    info = SimpleNamespace(config=None, siblings=[SimpleNamespace(rfilename=file)])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    with pytest.raises(ModelError, match=told):
        find_base("owner/name-of-nobody", Artifacts(tmp_path))


def test_an_adapter_whose_base_is_not_there_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    base, below = tmp_path / "adapter", tmp_path / "nowhere"
    base.mkdir()
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(below), "peft_type": "LORA"}))
    (base / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="nowhere', which isn't there"):
        prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))


def test_a_format_that_is_undone_at_opening_is_no_hindrance() -> None:
    check_trainable("gpt-oss", {"quantization_config": {"quant_method": "mxfp4"}})
