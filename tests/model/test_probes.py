"""What ptk says of a model is true of it, for families that differ in what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.probes import check_causal, head_is_plain, keeps_documents_apart
from pretrain_cli.training.run import train
from tests.support.families import build, saved
from tests.support.runs import Heard, prepare_text, record_of, small
from tests.support.tiny import SAMPLE

APART = ["llama", "qwen3", "gpt2", "gpt_neox", "mistral", "gemma"]
ACROSS = ["opt", "mamba", "bloom", "rwkv"]


@pytest.mark.parametrize("family", APART + ACROSS)
def test_a_model_that_continues_text_is_causal(family: str) -> None:
    check_causal(build(family), family)


@pytest.mark.filterwarnings("ignore:If you want to use")
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_a_model_that_sees_what_it_should_predict_is_refused(family: str) -> None:
    with pytest.raises(ModelError, match="isn't a causal language model"):
        check_causal(build(family), family)
    check_causal(build(family, is_decoder=True), family)


@pytest.mark.parametrize("family", APART)
def test_documents_in_a_row_are_kept_apart(family: str) -> None:
    assert keeps_documents_apart(build(family))


@pytest.mark.parametrize("family", ACROSS)
def test_documents_in_a_row_see_each_other_where_the_code_cannot_part_them(family: str) -> None:
    model = build(family).train()
    assert not keeps_documents_apart(model) and model.training


def test_a_probe_of_bf16_weights_takes_rounding_for_rounding() -> None:
    for family in ("llama", "gpt2"):
        model = build(family).to(torch.bfloat16)
        check_causal(model, family)
        assert keeps_documents_apart(model)
    with pytest.raises(ModelError):
        check_causal(build("bert").to(torch.bfloat16), "bert")


def test_a_head_with_a_bias_is_not_plain() -> None:
    assert head_is_plain(build("llama")) and not head_is_plain(build("gptj", rotary_dim=4))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2", "cohere", "gptj"])
def test_what_a_models_code_hands_on_tells_the_same_without_weights(family: str) -> None:
    values = {"rotary_dim": 4} if family == "gptj" else {}
    with torch.device("meta"):
        outline = build(family, **values)
    assert head_is_plain(outline) is head_is_plain(build(family, **values))


@pytest.fixture
def on_base(tmp_path: Path) -> Any:
    def prepare(family: str, **values: Any) -> tuple[Artifacts, Path]:
        base = saved(tmp_path / family, family, **values)
        return prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base), data__packing="best-fit"), base

    return prepare


def test_a_base_that_sees_the_future_is_neither_trained_nor_scored(on_base) -> None:
    artifacts, base = on_base("bert")
    with pytest.raises(ModelError, match="isn't a causal language model"):
        train(small(model__base=str(base), train__max_steps=2), artifacts)
    with pytest.raises(ModelError, match="isn't a causal language model"):
        evaluate(Config(evaluate=EvaluateConfig(on=("validation",))), artifacts, models=[str(base)])


def test_a_base_that_cannot_keep_documents_apart_is_trained_as_what_it_is(on_base) -> None:
    artifacts, base = on_base("opt")
    assert read_manifest(artifacts).settings.packing == "best-fit"
    heard = Heard()
    run = artifacts.run(train(small(model__base=str(base), train__max_steps=2), artifacts, heard).run)
    assert "documents seen across in a row: opt can't keep them apart" in record_of(run).choices
    with pytest.raises(ConfigError, match="can't keep documents apart"):
        train(small(model__base=str(base), train__max_steps=2, train__mask_documents=True), artifacts)
