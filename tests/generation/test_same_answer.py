"""What is wrong with a model's weights, generate and evaluate say alike; what isn't, they compute alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ModelError
from pretrain_cli.generation.engines.llama_shape import llama_shape
from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
from pretrain_cli.generation.run import generate
from pretrain_cli.model.files import read_model_json, read_weights, weight_files
from pretrain_cli.model.load import load_model
from tests.support.tiny import make_model

LAYER = "model.layers.0."


def change(folder: Path, without: str = "", **added: torch.Tensor) -> Path:
    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if name != without}
    save_file(
        {**weights, **{name.replace("__", "."): tensor for name, tensor in added.items()}}, file, {"format": "pt"}
    )
    return folder


def own_engine(folder: Path) -> LlamaShapedEngine:
    shape = llama_shape(read_model_json(folder / "config.json"))
    assert shape is not None
    return LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32)


MISSING = [
    ("llama", {}, "lm_head.weight"),
    ("qwen2", {}, LAYER + "self_attn.q_proj.bias"),
    ("qwen3", {}, LAYER + "self_attn.q_norm.weight"),
    ("llama", {"attention_bias": True}, LAYER + "self_attn.o_proj.bias"),
    ("llama", {"mlp_bias": True}, LAYER + "mlp.down_proj.bias"),
]


@pytest.mark.parametrize(("family", "changes", "name"), MISSING)
def test_a_missing_tensor_is_refused_by_both(
    tmp_path: Path, family: str, changes: dict[str, object], name: str
) -> None:
    folder = change(make_model(tmp_path / "model", family, **changes), without=name)
    with pytest.raises(ModelError, match=f"lack.*{name}"):
        load_model(folder)
    with pytest.raises(ModelError, match=f"lack.*{name}"):
        generate(changed(Config(), generate__max_tokens=2), Artifacts(tmp_path), prompts=["Call"], model=str(folder))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen3", {"attention_bias": True}),
        ("mistral", {"sliding_window": None}),
    ],
)
def test_biases_are_those_that_transformers_has(tmp_path: Path, family: str, changes: dict[str, object]) -> None:
    folder = make_model(tmp_path / "model", family, **changes)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    biases = {name: torch.randn_like(tensor) for name, tensor in weights.items() if name.endswith("bias")}
    save_file({**weights, **biases}, folder / "model.safetensors", {"format": "pt"})
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(own_engine(folder).start([ids], 1)[0], expected, rtol=1e-3, atol=1e-4)


def test_a_tied_head_with_values_of_its_own_is_taken_by_both(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "qwen3")
    torch.manual_seed(1)
    change(folder, lm_head__weight=torch.randn(387, 32))
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        expected = load_model(folder)(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(own_engine(folder).start([ids], 1)[0], expected, rtol=1e-3, atol=1e-4)
