"""Each way to begin a model, checked on its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.model.build import build_model
from pretrain_cli.model.sizes import LADDER
from pretrain_cli.tokenizer.load import read_tokenizer
from tests.tiny import make_model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_model(tmp_path / "base", num_hidden_layers=4)


def build(base: Path, **model: Any) -> Any:
    config = changed(Config(), model__base=str(base), **{f"model__{key}": value for key, value in model.items()})
    tokenizer = read_tokenizer(base)
    return build_model(
        config, Artifacts(base.parent / "artifacts"), vocab_size=tokenizer.vocab_size, sequence_length=32,
        tokenizer=tokenizer, shape=LADDER[0],
    )  # fmt: skip


def same(first: Any, second: Any) -> bool:
    """Every weight of two layers is equal."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def test_base_starts_from_the_bases_own_weights(base: Path) -> None:
    assert same(build(base), LlamaForCausalLM.from_pretrained(base))


def test_random_has_the_bases_shape_and_other_weights(base: Path) -> None:
    plain, fresh = build(base), build(base, init="random")
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in fresh.state_dict().items()}
    assert not torch.equal(plain.lm_head.weight, fresh.lm_head.weight)


def test_depth_up_repeats_the_middle_layers(base: Path) -> None:
    old, new = LlamaForCausalLM.from_pretrained(base).model.layers, build(base, init="depth-up").model.layers
    assert len(new) == 6
    assert [[same(layer, before) for before in old].index(True) for layer in new] == [0, 1, 2, 1, 2, 3]
    assert len({id(layer) for layer in new}) == 6


def test_drop_layers_keeps_the_first_and_the_last(base: Path) -> None:
    old, new = LlamaForCausalLM.from_pretrained(base).model.layers, build(base, init="drop-layers").model.layers
    assert [[same(layer, before) for before in old].index(True) for layer in new] == [0, 3]


def test_a_reshaped_model_opens_again_with_its_new_depth(base: Path, tmp_path: Path) -> None:
    model = build(base, init="depth-up", layers=5)
    model.save_pretrained(tmp_path / "saved")
    assert len(LlamaForCausalLM.from_pretrained(tmp_path / "saved").model.layers) == 5


def test_layers_that_do_not_fit_are_refused_with_the_range(base: Path) -> None:
    with pytest.raises(ConfigError, match="depth-up"):
        build(base, init="depth-up", layers=9)


def test_a_base_without_weights_is_a_model_error(base: Path) -> None:
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        build(base)


def test_the_published_tinysolar_shape_has_its_248_013_824_parameters() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=1024, num_hidden_layers=12, num_attention_heads=32, num_key_value_heads=8,
                intermediate_size=4096, vocab_size=32_000,
            )
        )  # fmt: skip
    assert model.num_parameters() == 248_013_824
