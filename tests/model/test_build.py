"""Each way to begin gives the weights that it promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.config.model import Config, DataConfig, ModelConfig
from pretrain_cli.errors import ConfigError, ModelError, OutOfMemoryError
from pretrain_cli.model.build import build_model
from pretrain_cli.model.sizes import SIZES, choose_shape, named_shape
from pretrain_cli.planning.run import plan_training
from pretrain_cli.tokenizer.load import read_tokenizer
from tests.support.tiny import make_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "model", num_hidden_layers=4)


def build(folder_of_base: Path, folder: Path, **values: Any):
    info = read_tokenizer(folder_of_base)
    settings = {"base": str(folder_of_base), **values}
    length = settings.pop("length", 64)
    return build_model(
        Config(model=ModelConfig(**settings)),
        Artifacts(folder),
        vocab_size=info.vocab_size,
        sequence_length=length,
        tokenizer=info,
        shape=named_shape("tiny"),
    )


def layer(model, index: int) -> dict[str, torch.Tensor]:
    return model.base_model.layers[index].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_base_keeps_every_weight_and_random_only_the_shape(base, tmp_path) -> None:
    original, kept = AutoModelForCausalLM.from_pretrained(base), build(base, tmp_path)
    assert same(original.state_dict(), kept.state_dict())
    fresh = build(base, tmp_path, init="random")
    assert fresh.num_parameters() == original.num_parameters()
    assert not same(layer(original, 0), layer(fresh, 0))


def test_sizes_of_no_model_are_told_before_one_is_counted(base, tmp_path) -> None:
    """`ptk train` and `ptk plan` count a base's weights before they open it."""
    folder = shutil.copytree(base, tmp_path / "base")
    (tmp_path / "a.txt").write_text("Some words of a text. " * 500, encoding="utf-8")
    config = Config(model=ModelConfig(base=str(folder)), data=DataConfig(inputs=[str(tmp_path / "a.txt")]))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for changes, told in (({"vocab_size": 0}, "vocab_size is 0"), ({"num_hidden_layers": 99_999}, "99,999")):
        (folder / "config.json").write_text(json.dumps({**settings, **changes}), encoding="utf-8")
        with pytest.raises(ModelError, match=told):
            plan_training(config, Artifacts(tmp_path / "artifacts"))
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": 0}), encoding="utf-8")
    with pytest.raises(ModelError, match="can't be opened"):
        build(folder, tmp_path, init="random")


@pytest.mark.parametrize("width", [10**8, 4 * 10**9, 4 * 10**20])
def test_random_weights_that_no_memory_holds_are_said_to_be_too_many(base, tmp_path, width: int) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del settings["head_dim"]
    wide = {**settings, "hidden_size": width, "intermediate_size": width}
    (folder / "config.json").write_text(json.dumps(wide), encoding="utf-8")
    with pytest.raises(OutOfMemoryError, match="needs more memory than there is"):
        build(folder, tmp_path, init="random")


def test_depth_up_repeats_the_middle_layers_as_solar_does(base, tmp_path) -> None:
    original, taller = AutoModelForCausalLM.from_pretrained(base), build(base, tmp_path, init="depth-up")
    assert taller.config.num_hidden_layers == 6
    for index, source in enumerate([0, 1, 2, 1, 2, 3]):
        assert same(layer(taller, index), layer(original, source))
    pointers = {parameter.data_ptr() for parameter in taller.parameters()}
    assert len(pointers) == len(list(taller.parameters()))  # copies, not the same layer twice
    reopened(taller, tmp_path)


def test_drop_layers_keeps_the_first_and_the_last(base, tmp_path) -> None:
    original, shorter = AutoModelForCausalLM.from_pretrained(base), build(base, tmp_path, init="drop-layers", layers=3)
    assert shorter.config.num_hidden_layers == 3
    for index, source in enumerate([0, 2, 3]):
        assert same(layer(shorter, index), layer(original, source))
    reopened(shorter, tmp_path)


def reopened(model, folder: Path) -> None:
    """The reshaped model saves, opens again and gives the same logits, with a cache too."""
    model.eval().save_pretrained(folder / "saved")
    again = AutoModelForCausalLM.from_pretrained(folder / "saved")
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, again(ids).logits)
    assert again.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 12)


@pytest.mark.parametrize(("init", "layers"), [("depth-up", 4), ("depth-up", 9), ("drop-layers", 4)])
def test_impossible_layer_counts_are_refused(base, tmp_path, init: str, layers: int) -> None:
    with pytest.raises(ConfigError, match="layers"):
        build(base, tmp_path, init=init, layers=layers)


def test_reshaping_nothing_and_rows_that_are_too_long_are_refused(base, tmp_path) -> None:
    with pytest.raises(ConfigError, match="reshapes a base"):
        build(base, tmp_path, base="", init="depth-up")
    with pytest.raises(ConfigError, match="128"):
        build(base, tmp_path, length=256)
    with pytest.raises(ModelError):
        build(base, tmp_path, base=str(tmp_path / "nothing-here"))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_from_scratch_each_layer_begins_as_the_identity(base, tmp_path, family: str) -> None:
    torch.manual_seed(0)
    model = build(base, tmp_path, base="", family=family)
    assert model.config.model_type == family and model.config.hidden_act == "silu"
    ids = torch.arange(3, 13)[None]
    hidden = model.base_model(ids, use_cache=False).last_hidden_state
    embedded = model.base_model.norm(model.get_input_embeddings()(ids))
    torch.testing.assert_close(hidden, embedded)
    assert model.base_model.layers[0].self_attn.q_proj.weight.std().item() == pytest.approx(128**-0.5, rel=0.1)
    reopened(model, tmp_path / family)


def test_the_ladder_grows_and_its_formulas_are_those_of_the_models() -> None:
    sizes = [shape.parameters(4096) for shape in SIZES]
    assert sizes == sorted(sizes)
    costs = [
        choose_shape(lambda shape, _: flops / shape.flops_per_token(4096, 256), 4096).value.hidden  # noqa: B023
        for flops in (1e10, 1e13, 1e15, 1e17, 1e19)
    ]
    assert costs == sorted(costs) and costs[0] == 128 and costs[-1] == 1024
    assert named_shape("small", layers=2).layers == 2
    with pytest.raises(ConfigError, match="huge"):
        named_shape("huge")


def test_a_size_can_be_a_number_of_layers() -> None:
    assert named_shape("8") == named_shape("small") and named_shape("12").name == "base"
    between = named_shape("16")
    assert (between.layers, between.hidden) == (16, 768) and named_shape("16", layers=3).layers == 3
    assert load_config(assignments=["model.size=16"]).config.model.size == "16"
    for wrong in ("0", "1000", "-3"):
        with pytest.raises(ConfigError, match=wrong):
            named_shape(wrong)


@pytest.mark.parametrize("vocab", [400, 32_000])
def test_parameters_are_counted_as_transformers_counts_them(base, tmp_path, vocab: int) -> None:
    shape, info = named_shape("tiny"), read_tokenizer(base)
    model = build_model(
        Config(), Artifacts(tmp_path), vocab_size=vocab, sequence_length=64, tokenizer=info, shape=shape
    )
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    assert shape.parameters(vocab) == model.num_parameters() - norms
    assert model.config.tie_word_embeddings is (vocab > 20_000)
