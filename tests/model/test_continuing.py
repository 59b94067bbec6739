"""Any model continues text as if it read all of it at once, whatever it calls what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedConfig

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.model.continuing import reader_in_training, reader_of
from pretrain_cli.model.greedy import greedy_ids
from pretrain_cli.model.limits import limit_of_config, position_limit, size_of
from pretrain_cli.training.run import train
from pretrain_cli.training.step.loss import attach_loss
from tests.support.families import build, saved
from tests.support.runs import prepare_text, small
from tests.support.tiny import SAMPLE, make_model

MEMORY = {"llama": "past_key_values", "gpt2": "past_key_values", "mamba": "cache_params", "rwkv": "state"}
FAMILIES = [*MEMORY, "bloom", "openai-gpt"]


@pytest.mark.parametrize("family", FAMILIES)
def test_text_goes_on_as_if_all_of_it_were_read_at_once(family: str) -> None:
    model = build(family).eval()
    read = reader_of(model)
    assert read.memory == MEMORY.get(family, read.memory)
    with torch.no_grad():
        written = greedy_ids(read, [5, 6, 7], 12, [], model.device)
        whole = model(input_ids=torch.tensor([[5, 6, 7, *written]]), use_cache=False).logits[0]
    assert written == whole[2:-1].argmax(-1).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_trained_writes_what_it_writes_otherwise(family: str) -> None:
    model = build(family).eval()
    expected = greedy_ids(reader_of(model), [5, 6, 7], 6, [], model.device)
    detach = attach_loss(model, False, 0.0)
    assert greedy_ids(reader_in_training(model), [5, 6, 7], 6, [], model.device) == expected
    detach()


def test_positions_are_counted_from_after_the_padding_s() -> None:
    assert position_limit(build("llama")) == limit_of_config(build("llama").config) == 64
    model = build("roberta", is_decoder=True, pad_token_id=1)
    limit = position_limit(model)
    assert limit == 62
    assert model(input_ids=torch.full((1, limit), 5)).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


def score_and_write(artifacts: Artifacts, model: str | None) -> None:
    scored = evaluate(changed(Config(), evaluate__on=("validation",)), artifacts, models=[model] if model else [])
    assert scored.models[0].texts[0].bits_per_byte > 0
    written = generate(changed(Config(), generate__max_tokens=5), artifacts, prompts=["Call"], model=model)
    assert written.samples[0].tokens


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mamba", "rwkv"])
def test_the_road_is_walked_with_a_recurrent_state(tmp_path: Path, family: str) -> None:
    base = saved(tmp_path / family, family)
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))
    trained = train(small(model__base=str(base), train__max_steps=2, train__sample_prompts=("Call",)), artifacts)
    assert '"step": 2' in artifacts.run(trained.run).samples.read_text(encoding="utf-8")
    score_and_write(artifacts, None)
    assert export(artifacts).checked == "opened with transformers"


def test_a_model_of_few_positions_is_scored(tmp_path: Path) -> None:
    base = make_model(tmp_path / "gpt2", "gpt2", n_positions=64)
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))
    score_and_write(artifacts, str(base))


def test_rows_longer_than_the_positions_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "roberta", "roberta", is_decoder=True, pad_token_id=1, max_position_embeddings=33)
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))
    with pytest.raises(ConfigError, match="at most 31"):
        train(small(model__base=str(base), train__max_steps=1), artifacts)


def test_a_config_whose_layers_differ_has_no_common_size() -> None:
    class Differing(PreTrainedConfig):
        max_position_embeddings, hidden_size = 64, 32

        @property
        def num_attention_heads(self) -> int:
            raise RuntimeError("'num_attention_heads' is a per-layer attribute")  # as transformers' own error is one

    assert (size_of(Differing(), "num_attention_heads", 1), size_of(Differing(), "hidden_size")) == (1, 32)
    assert limit_of_config(Differing()) == 64
