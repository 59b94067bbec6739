"""On a CPU text can be written with weights in fewer bits, where that is asked for or a timing says that it pays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.generation.engines import torch_engine
from pretrain_cli.generation.engines.llama_shape import llama_shape
from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
from pretrain_cli.generation.engines.row_products import IN_BF16, IN_INT8, RowProduct
from pretrain_cli.generation.run import generate
from pretrain_cli.model.files import read_model_json, read_weights, weight_files
from tests.support.families import saved
from tests.support.runs import Heard
from tests.support.tiny import make_model


def engine_of(folder: Path, rounded: RowProduct | None) -> LlamaShapedEngine:
    shape = llama_shape(read_model_json(folder / "config.json"))
    assert shape is not None
    return LlamaShapedEngine(read_weights(weight_files(folder)), shape, "cpu", torch.float32, rounded)


@pytest.mark.parametrize(("product", "off"), [(IN_BF16, 0.005), (IN_INT8, 0.02)])
def test_a_product_with_fewer_bits_is_off_by_their_rounding(product: RowProduct, off: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(700, 96) * torch.logspace(-3, 1, 700)[:, None]  # outputs of very different sizes
    weight[3] = 0
    (piece,) = product.lay_out((weight,), 1)
    for rows in (1, 5):
        x = torch.randn(rows, 1, 96)
        found, wanted = product.multiply(x, piece), F.linear(x, weight)
        assert found.dtype == torch.float32 and found.shape == wanted.shape
        assert ((found - wanted).norm(dim=(0, 1)) <= off * x.norm() * weight.norm(dim=1)).all()


@pytest.mark.parametrize("product", [IN_BF16, IN_INT8])
def test_the_prompt_is_read_as_ever_and_what_follows_is_off_by_a_little(tmp_path: Path, product: RowProduct) -> None:
    folder = make_model(tmp_path / "model", "qwen3")
    plain, rounded = engine_of(folder, None), engine_of(folder, product)
    prompts = [[5, 6, 7], [8, 9]]
    assert torch.equal(plain.start(prompts, 4), rounded.start(prompts, 4)) and not rounded.rounds
    for tokens in ([3, 4], [5, 6]):
        wanted, found = plain.step([0, 1], tokens), rounded.step([0, 1], tokens)
        assert 0 < (found - wanted).norm() / wanted.norm() < 0.05


def test_text_comes_with_weights_of_eight_bits(tmp_path: Path) -> None:
    config = changed(
        Config(), generate__precision="int8-weights", generate__greedy=True, generate__max_tokens=8, generate__samples=2
    )
    model = str(make_model(tmp_path / "model", "llama"))
    texts = [sample.text for sample in generate(config, Artifacts(tmp_path), prompts=["Call me"], model=model).samples]
    assert len(texts) == 2 and texts[0] == texts[1]


def test_weights_of_fewer_bits_are_refused_where_they_can_not_be_used(tmp_path: Path) -> None:
    config = changed(Config(), generate__precision="int8-weights", generate__max_tokens=2)
    with pytest.raises(ConfigError, match="for Llama-, Mistral- and Qwen-shaped models on a CPU"):
        generate(config, Artifacts(tmp_path), prompts=["a"], model=str(saved(tmp_path / "gpt2", "gpt2")))


@pytest.mark.parametrize(("native", "gain", "taken"), [(True, 1.9, True), (True, 1.1, False), (False, 1.9, False)])
def test_bf16_weights_are_taken_where_the_cpu_has_them_and_they_are_faster(
    tmp_path: Path, monkeypatch, native: bool, gain: float, taken: bool
) -> None:
    timed: list[object] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    monkeypatch.setattr(torch_engine, "LEAST_WEIGHTS", 0)
    monkeypatch.setattr(torch_engine, "bf16_gain", lambda weight: timed.append(weight) or gain)
    model, heard = str(make_model(tmp_path / "model", "llama")), Heard()
    opened: list[object] = []
    plain = torch_engine.LlamaShapedEngine
    monkeypatch.setattr(torch_engine, "LlamaShapedEngine", lambda *words: opened.append(words[-1]) or plain(*words))
    config = changed(Config(), generate__max_tokens=2, generate__device="cpu")
    generate(config, Artifacts(tmp_path), heard, prompts=["a"], model=model)
    assert opened == [IN_BF16 if taken else None] and bool(timed) is native
    assert any("weights in bf16: 1.9 times as fast" in note for note in heard.notes) is taken
