"""What each rank of a sharded training holds, on two ranks over gloo."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from pretrain_cli.storage import read_lines
from pretrain_cli.training.step.loss import attach_loss
from tests.support.families import saved
from tests.support.launching import ptk
from tests.support.ranks import on_ranks
from tests.support.runs import prepare_text, record_of
from tests.support.sharded import model_of
from tests.support.tiny import SAMPLE

FORWARD, ACCUMULATE = "tests.support.sharded:forward", "tests.support.sharded:accumulate"


@pytest.mark.slow
def test_no_copy_of_the_layers_is_kept_until_the_backward_pass() -> None:
    """Autocast over fp32 shards keeps one of nearly each; the sharding's own policy gathers a layer when it is due."""
    by_autocast = on_ranks(2, FORWARD, precision="bf16", policy=False)[0]
    by_policy = on_ranks(2, FORWARD, precision="bf16", policy=True)[0]
    assert by_autocast["kept_weights"] > 0.8, by_autocast
    assert by_policy["kept_weights"] < 0.35, by_policy  # activations, and the last layer, which is due first
    assert by_policy["loss"] == pytest.approx(by_autocast["loss"], rel=0.02)
    assert by_policy["gradients"] == ["torch.float32"]
    assert by_policy["groups"] == 8 + 3  # the embedding and the head have their own


@pytest.mark.slow
def test_a_head_of_its_own_is_whole_for_the_loss_only() -> None:
    for found in on_ranks(2, "tests.support.sharded:head"):
        assert not found["whole before the loss"] and not found["whole after the last layer's backward"]
        assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
        assert found["far"] < 1e-5 and found["head"] == 256, found


@pytest.mark.slow
def test_gradients_are_shared_out_after_every_micro_batch() -> None:
    for held in on_ranks(2, ACCUMULATE, steps=3):
        assert held["whole"] == 0 and held["own"] < 0.6, held


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_a_base_is_read_in_shards_and_no_rank_ever_holds_it_whole(tmp_path, tied: bool) -> None:
    whole = model_of(4, hidden_size=512, intermediate_size=2048, vocab_size=8000, tie_word_embeddings=tied)
    whole.save_pretrained(tmp_path)
    ids = torch.arange(16).view(2, 8)
    attach_loss(whole, True, 0.0)
    wanted = float(whole(input_ids=ids, labels=ids)["loss"].detach())
    for found in on_ranks(2, "tests.support.sharded:read", folder=str(tmp_path), base=str(tmp_path)):
        assert found["outline"] == ["meta"] and found["share"] == pytest.approx(0.5, abs=0.01)
        assert found["grew"] < 0.75 and found["known"] == [True, True], found
        assert found["loss"] == pytest.approx(wanted, rel=1e-5)
        assert ("lm_head" in found["groups"]) is not tied and "model.layers.3" in found["groups"]


@pytest.mark.slow
def test_a_base_that_is_read_in_shards_trains_as_one_in_one_piece(tmp_path) -> None:
    base = saved(tmp_path / "base", "llama")
    artifacts = prepare_text(tmp_path / "data", SAMPLE * 20, model__base=str(base))
    more = ("--max-steps", "6", "--set", "train.learning_rate=1e-3", "--set", "train.batch_tokens=256")
    common = ("--device", "cpu", "--precision", "fp32", "--set", "train.threads=1", "--set", "tracking.report_to=none")
    courses = []
    for name, words in (("whole", ()), ("shards", ("--shard-model", "--processes", "2"))):
        code, _, err = ptk(artifacts, "--run", name, *common, *more, *words)
        assert code == 0, err
        courses.append([line["loss"] for line in read_lines(artifacts.run(name).metrics) if "loss" in line])
    assert courses[0] == pytest.approx(courses[1], abs=1e-3)
    record = record_of(artifacts.run("shards"))
    assert "sharded: each of 2 processes holds 50% of the weights" in record.choices
    assert AutoModelForCausalLM.from_pretrained(artifacts.run("shards").model).num_parameters() == record.parameters
