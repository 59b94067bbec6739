"""A base whose vocabulary grew learns its new tokens, and remains a model like any other."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ConfigError, UsageError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.exporting.run import export
from pretrain_cli.generation.run import generate
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.growing import grow_model
from pretrain_cli.planning.run import plan_training
from pretrain_cli.tokenizer.extend import pieces_of
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.training.run import train
from tests.support.runs import Heard, PowerCut, course, cut, prepare_text, record_of, small, weights_equal
from tests.support.tiny import make_model

SYLLABLES = tuple("kai ki ih mi set syn ty vät va pai na ja ta sa ver tai si ar vol taan oi keuk".split())  # noqa: SIM905
DRAW = random.Random(0)
VOCABULARY = ["".join(DRAW.choices(SYLLABLES, k=DRAW.randint(1, 3))) for _ in range(150)]


def words(count: int) -> str:
    """A text of so many words that repeat."""
    return " ".join(DRAW.choices(VOCABULARY, k=count)) + ". "


RUN: dict[str, Any] = {"model__size": "auto", "model__layers": None, "train__max_steps": 6, "train__save_steps": 2}
NEW = 70
TEXT = "\n\n".join(words(250) for _ in range(16))


def grown(folder: Path, family: str, **values: Any) -> Artifacts:
    """Rows of 32 tokens for a base of that family, whose tokenizer has `NEW` entries more."""
    base = make_model(folder / "base", family)
    settings = {"model__base": str(base), "tokenizer__vocab_size": "auto", "tokenizer__extend_vocab": NEW}
    return prepare_text(folder, TEXT, **{**settings, **values})


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A head with weights of its own, and one tied to the embedding."""
    return grown(tmp_path_factory.mktemp("grown"), request.param)


@pytest.fixture(scope="module")
def whole(artifacts: Artifacts) -> RunFolder:
    train(small(**RUN, train__learning_rate=0.01, train__method="full"), artifacts, run_name="whole")
    return artifacts.run("whole")


def embedding(run: RunFolder) -> torch.Tensor:
    return load_file(run.model / "model.safetensors")["model.embed_tokens.weight"]


def test_the_manifest_says_what_was_added_and_what_it_saves(artifacts: Artifacts) -> None:
    record = read_manifest(artifacts).tokenizer
    found = record.extension
    assert found is not None and (found.first, found.added) == (record.vocab_size - NEW, NEW)
    assert 0 < found.used <= NEW and found.sources["text"].tokens < 0.6 * found.sources["text"].base_tokens
    assert "tokens a byte instead of" in found.sources["text"].told()


def test_a_second_prepare_finds_nothing_to_do_and_another_number_prepares_again(tmp_path: Path) -> None:
    artifacts = grown(tmp_path, "llama")
    first = read_manifest(artifacts)
    grown(tmp_path, "llama")
    assert read_manifest(artifacts) == first
    grown(tmp_path, "llama", tokenizer__extend_vocab=10)
    again = read_manifest(artifacts).tokenizer.extension
    assert again is not None and again.added == 10


def test_shards_of_one_text_share_the_extended_vocabulary(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(words(400))
    inputs = [str(tmp_path / f"{number}.txt") for number in range(3)]
    settings = {"data__inputs": inputs, "data__workers": 1, "model__base": str(base), "tokenizer__extend_vocab": NEW}
    for shard in ("0/2", "1/2"):
        prepare(changed(Config(), **settings, data__shard=shard), Artifacts(tmp_path / "shards"))
    prepare(changed(Config(), **settings), Artifacts(tmp_path / "shards"), merge=True)
    prepare(changed(Config(), **settings), Artifacts(tmp_path / "whole"))
    one, other = (read_manifest(Artifacts(tmp_path / name)) for name in ("shards", "whole"))
    assert one.fingerprint == other.fingerprint


def test_new_rows_start_as_the_mean_of_their_pieces(artifacts: Artifacts) -> None:
    info = read_tokenizer(artifacts.tokenizer)
    base = str(artifacts.root.parent / "base")
    before = AutoModelForCausalLM.from_pretrained(base)
    after = AutoModelForCausalLM.from_pretrained(base)
    grow_model(after, info, "mean", 64, base)
    first = info.grown_from
    assert first is not None
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, table)().weight, getattr(after, table)().weight
        assert new.shape[0] % 64 == 0 and new.shape[0] >= info.vocab_size and torch.equal(old[:first], new[:first])
        for row, ids in enumerate(pieces_of(artifacts.tokenizer, first), first):
            assert torch.allclose(new[row], old[ids].mean(0), atol=1e-6)
    assert after.config.vocab_size == after.get_input_embeddings().weight.shape[0]


@pytest.mark.slow
def test_the_run_learns_new_tokens_and_every_later_command_works(whole: RunFolder, artifacts: Artifacts) -> None:
    info = read_tokenizer(artifacts.tokenizer)
    assert info.grown_from is not None and embedding(whole).shape[0] >= info.vocab_size
    config = small(evaluate__on=["validation"])
    models = evaluate(config, artifacts, models=["whole"]).models
    bits = {model.name: model.texts[0].bits_per_byte for model in models}
    assert set(bits) == {"whole", "base"} and bits["whole"] < bits["base"]
    assert models[0].texts[0].bytes == models[1].texts[0].bytes
    made = generate(small(generate__max_tokens=5), artifacts, prompts=["Kaikki ihmiset"], model="whole")
    assert made.samples[0].text
    AutoModelForCausalLM.from_pretrained(whole.model)


@pytest.mark.slow
def test_a_gguf_of_it_writes_what_it_writes(whole: RunFolder, artifacts: Artifacts) -> None:
    pytest.importorskip("xllamacpp")
    checked = export(artifacts, to="gguf", run="whole").checked
    assert "greedy tokens are those of transformers" in checked and "other tokens" not in checked


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_resume_after_a_cut_gives_the_same_weights(method: str, artifacts: Artifacts) -> None:
    settings = {**RUN, "train__method": method, "train__lora_rank": 4, "train__new_token_rate": 3.0}
    settings |= {"train__new_tokens_first": 0.5}
    train(small(**settings), artifacts, run_name=f"{method}-whole")
    with pytest.raises(PowerCut):
        train(small(**settings), artifacts, Heard(step_5=cut), run_name=f"{method}-cut")
    train(small(model__size="auto", model__layers=None), artifacts, resume=f"{method}-cut")
    one, other = artifacts.run(f"{method}-whole"), artifacts.run(f"{method}-cut")
    assert weights_equal(one, other) and course(one) == course(other)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_at_first_only_new_rows_move(method: str, artifacts: Artifacts) -> None:
    """A run that is all first stage leaves every old weight as it was."""
    settings = {**RUN, "train__method": method, "train__lora_rank": 4, "train__new_tokens_first": 0.99}
    train(small(**settings), artifacts, run_name=f"{method}-alone")
    info, base = read_tokenizer(artifacts.tokenizer), artifacts.root.parent / "base"
    before = load_file(base / "model.safetensors")
    after = load_file(artifacts.run(f"{method}-alone").model / "model.safetensors")
    first = info.grown_from
    assert first is not None and before.keys() == after.keys()
    for name, tensor in before.items():
        rows = first if name in ("model.embed_tokens.weight", "lm_head.weight") else tensor.shape[0]
        assert torch.allclose(tensor[:rows], after[name][:rows], atol=1e-7), name
    table = "model.embed_tokens.weight"
    pieces = enumerate(pieces_of(artifacts.tokenizer, first), first)
    assert sum(not torch.allclose(after[table][row], before[table][ids].mean(0)) for row, ids in pieces) > NEW / 2


@pytest.mark.slow
def test_lora_trains_the_new_rows_too_and_plain_peft_opens_its_adapter(artifacts: Artifacts) -> None:
    from peft import PeftModel

    train(small(**RUN, train__method="lora", train__lora_rank=4), artifacts, run_name="beside")
    run = artifacts.run("beside")
    merged = AutoModelForCausalLM.from_pretrained(run.model)
    record = load_file(run.adapter / "adapter_model.safetensors")
    assert any("trainable_tokens_delta" in name for name in record)
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    start = base.get_input_embeddings().weight.detach().clone()
    beside = PeftModel.from_pretrained(base, run.adapter).eval()
    ids = torch.arange(24)[None] * 7 % merged.config.vocab_size
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, beside(input_ids=ids).logits, atol=1e-4)
    first = read_tokenizer(artifacts.tokenizer).grown_from
    moved = (merged.get_input_embeddings().weight != start).any(1)
    assert not moved[:first].any() and moved[first:].sum() > NEW / 2
    tied = merged.config.tie_word_embeddings
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied


@pytest.mark.slow
def test_new_rows_move_at_their_own_rate(artifacts: Artifacts) -> None:
    """One step of AdamW moves each weight by about the rate, so that new rows move three times as far."""
    settings = {**RUN, "train__max_steps": 1, "train__method": "full", "train__learning_rate": 1e-3}
    settings |= {"train__warmup_steps": 0, "train__schedule": "constant"}
    info = read_tokenizer(artifacts.tokenizer)
    first = info.grown_from
    train(small(**settings), artifacts, run_name="plain")
    train(small(**settings, train__new_token_rate=3.0), artifacts, run_name="faster")
    plain, faster = (embedding(artifacts.run(name)) for name in ("plain", "faster"))
    base = AutoModelForCausalLM.from_pretrained(artifacts.root.parent / "base")
    grow_model(base, info, "mean", 64, "base")
    start = base.get_input_embeddings().weight.detach()
    assert torch.equal(plain[:first], faster[:first])
    assert torch.allclose(faster[first:] - start[first:], 3 * (plain[first:] - start[first:]), atol=1e-6)


@pytest.mark.slow
def test_a_run_can_be_extended_again(whole: RunFolder, artifacts: Artifacts, tmp_path: Path) -> None:
    again = prepare_text(tmp_path, TEXT, model__base=str(whole.model), tokenizer__vocab_size="auto")
    assert read_tokenizer(again.tokenizer).grown_from is None
    size = read_tokenizer(artifacts.tokenizer).vocab_size
    settings = {"model__base": str(whole.model), "tokenizer__vocab_size": "auto", "tokenizer__extend_vocab": 9}
    again = prepare_text(tmp_path, TEXT, **settings)
    assert read_tokenizer(again.tokenizer).grown_from == size
    train(small(**{**RUN, "train__max_steps": 1}), again, run_name="again")
    assert embedding(again.run("again")).shape[0] >= size + 9


@pytest.mark.slow
def test_a_plan_counts_the_new_rows(artifacts: Artifacts, whole: RunFolder) -> None:
    assert plan_training(small(**RUN), artifacts, measure_seconds=0).parameters == record_of(whole).parameters


def test_what_cannot_be_extended_is_refused_before_the_text_is_read(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(words(20))
    with pytest.raises(UsageError, match="no") as told:
        prepare(small(data__inputs=[str(text)], tokenizer__extend_vocab="auto"), Artifacts(tmp_path / "a"))
    assert "--base MODEL" in str(told.value.hint)
    base = make_model(tmp_path / "base")
    both = {"tokenizer__extend_vocab": 5, "tokenizer__path": str(base), "model__base": str(base)}
    with pytest.raises(UsageError, match="replaces it"):
        prepare(small(data__inputs=[str(text)], **both), Artifacts(tmp_path / "b"))


def test_a_config_that_asks_for_another_vocabulary_than_was_prepared_is_refused(artifacts: Artifacts) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.extend_vocab"):
        train(small(**RUN, tokenizer__extend_vocab=NEW + 1), artifacts, run_name="other")
