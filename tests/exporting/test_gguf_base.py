"""A .gguf file that ptk wrote is opened by ptk again as the model it was, as a base and for text."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ModelError
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.model.gguf_reading import convert_gguf, gguf_config
from pretrain_cli.storage import read_json
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.run import train
from tests.support.runs import prepare_text, small
from tests.support.tiny import OTHER_SHAPES, SAMPLE, make_model

pytest.importorskip("gguf")
SHAPES = [("llama", {}), ("qwen3", {}), *OTHER_SHAPES]
OWN_KEYS = ("ptk.config", "ptk.tokenizer_config", "ptk.generation_config", "tokenizer.huggingface.json")


def exported(tmp_path: Path, family: str, quantization: str = "f16", **changes: object) -> tuple[Path, Path]:
    """A model's folder, and the .gguf file it was exported to."""
    folder = make_model(tmp_path / "model", family, **changes)
    result = export(Artifacts(tmp_path / "from"), to="gguf", run=str(folder), quantization=quantization)
    return folder, next(file for file in result.files if file.suffix == ".gguf")


def without_own_keys(file: Path, folder: Path) -> Path:
    """The same file as another program would have written it."""
    other = folder / "other.gguf"
    program = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(file), str(other), "--force"]
    removed = [word for key in OWN_KEYS for word in ("--remove-metadata", key)]
    subprocess.run([*program, *removed], check=True, capture_output=True)
    return other


@pytest.mark.parametrize(("family", "changes"), SHAPES)
def test_what_was_exported_is_what_is_opened(tmp_path: Path, family: str, changes: dict[str, object]) -> None:
    folder, file = exported(tmp_path, family, **changes)
    again = convert_gguf(file, Artifacts(tmp_path / "to"))
    weights, found = (load_file(place / "model.safetensors") for place in (folder, again))
    assert weights.keys() == found.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.half().float() if weight.ndim > 1 else weight, rtol=0, atol=0)
    config, other = (read_json(place / "config.json") for place in (folder, again))
    assert config | {"dtype": 0} == other | {"dtype": 0}
    assert read_tokenizer(again).fingerprint == read_tokenizer(folder).fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_converted_file_that_is_damaged_is_converted_again(tmp_path: Path, name: str) -> None:
    _, file = exported(tmp_path, "llama")
    made = convert_gguf(file, Artifacts(tmp_path / "to"))
    whole = (made / name).read_bytes()
    (made / name).write_bytes(whole.replace(whole[-20:], bytes(reversed(whole[-20:]))))
    assert convert_gguf(file, Artifacts(tmp_path / "to")) == made
    assert (made / name).read_bytes() == whole


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_width_of_heads_and_a_vocabulary_are_those_of_the_file(tmp_path: Path, family: str) -> None:
    """transformers takes the architecture's usual width of heads, and adds a token that has no row."""
    folder, file = exported(tmp_path, family)
    other = without_own_keys(file, tmp_path)
    assert gguf_config(other).head_dim == 8
    again = convert_gguf(other, Artifacts(tmp_path / "to"))
    assert read_tokenizer(again).vocab_size == read_json(again / "config.json")["vocab_size"]
    weights, found = (load_file(place / "model.safetensors") for place in (folder, again))
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-3)
    own, made = (Tokenizer.from_file(str(place / "tokenizer.json")) for place in (folder, again))
    assert own.encode(SAMPLE).ids == made.encode(SAMPLE).ids


def test_the_base_of_a_run_may_be_a_file_of_an_earlier_one(tmp_path: Path) -> None:
    _, file = exported(tmp_path, "qwen3")
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(file))
    trained = train(small(model__base=str(file), train__max_steps=1), artifacts)
    assert trained.steps == 1
    written = generate(changed(Config(), generate__max_tokens=5), artifacts, prompts=["Call"], model=str(file))
    assert written.samples[0].tokens


def test_rounded_weights_are_read_back(tmp_path: Path) -> None:
    folder, file = exported(tmp_path, "qwen3", "q8_0")
    again = convert_gguf(file, Artifacts(tmp_path / "to"))
    name = "model.layers.0.mlp.gate_proj.weight"
    weight, found = (load_file(place / "model.safetensors")[name] for place in (folder, again))
    assert (weight - found).abs().max() < weight.abs().max() / 127


def test_a_file_that_is_cut_short_is_called_that(tmp_path: Path) -> None:
    _, file = exported(tmp_path, "llama")
    short = tmp_path / "short.gguf"
    shutil.copyfile(file, short)
    with open(short, "r+b") as handle:
        handle.truncate(file.stat().st_size * 3 // 4)
    with pytest.raises(ModelError, match=r"GGUF|damaged"):
        convert_gguf(short, Artifacts(tmp_path / "to"))


def test_code_that_a_file_names_is_left_out(tmp_path: Path) -> None:
    _, file = exported(tmp_path, "llama", auto_map={"AutoModelForCausalLM": "evil.Model"})
    again = convert_gguf(file, Artifacts(tmp_path / "to"))
    assert "auto_map" not in read_json(again / "config.json")


@pytest.mark.parametrize("count", [10**9])
def test_a_gguf_file_of_a_billion_layers_is_refused_before_a_list_is_made_of_them(tmp_path: Path, count: int) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_block_count(count)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="describes no model"):
        gguf_config(tmp_path / "a.gguf")
