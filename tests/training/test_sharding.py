"""Parameters are really sharded, and a checkpoint resumes in any layout."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.plan import make_plan
from pretrain_cli.training.processes.sharding import be_one_of_one, check_zero_layout, refuse_other_sharding, zero_stage
from tests.support.launching import COMMON, furthest, ptk, start, trained, wait_for_step
from tests.support.runs import record_of

SHARDED = ("--shard-model", "--processes", "2")


@pytest.fixture(scope="module")
def one(rows: Artifacts) -> RunFolder:
    return trained(rows, "whole")


def stopped(rows: Artifacts, name: str, *more: str) -> RunFolder:
    run = rows.run(name)
    process = start(rows, "--run", name, *COMMON, *more)
    wait_for_step(run, 12, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    return run


def test_muon_is_not_taken_where_matrices_are_in_parts() -> None:
    facts = Facts(100, 32, 512, 1e12, 8e9, world_size=2)
    assert make_plan(facts, TrainConfig(shard_model=True, max_steps=3)).optimizer == "adamw"
    with pytest.raises(ConfigError, match="Muon needs whole matrices"):
        make_plan(facts, TrainConfig(shard_model=True, optimizer="muon", max_steps=3))
    under_deepspeed = replace(facts, deepspeed=True)
    assert make_plan(under_deepspeed, TrainConfig(max_steps=3)).optimizer == "adamw"
    with pytest.raises(ConfigError, match="DeepSpeed splits"):
        make_plan(under_deepspeed, TrainConfig(optimizer="muon", max_steps=3))


def test_accelerates_own_sharding_is_refused_and_ours_named() -> None:
    refuse_other_sharding({"deepspeed": "file.json"}, {"ACCELERATE_USE_FSDP": "false"})
    for trainer, environ in (({"fsdp_config": "fsdp.json"}, {}), ({}, {"ACCELERATE_USE_FSDP": "true"})):
        with pytest.raises(ConfigError, match="ptk does that itself") as caught:
            refuse_other_sharding(trainer, environ)
        assert "--shard-model" in caught.value.hint
    with pytest.raises(ConfigError, match="accelerate launch asks for DeepSpeed"):
        refuse_other_sharding({}, {"ACCELERATE_USE_DEEPSPEED": "true"})


def test_the_stage_of_deepspeed_is_read_from_a_file_or_a_table(tmp_path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text('{"zero_optimization": {"stage": 3}}')
    assert zero_stage({"deepspeed": str(file)}) == 3 and zero_stage({"deepspeed": {"fp16": {}}}) == 0
    assert zero_stage({}) is None
    check_zero_layout({"deepspeed": str(file)}, 2, 2)
    check_zero_layout({}, 2, 1)
    with pytest.raises(ConfigError, match="as many processes as wrote them: 2, not 1"):
        check_zero_layout({"deepspeed": str(file)}, 2, 1)
    environ = {"MASTER_PORT": "29500"}
    be_one_of_one(environ)
    assert environ["WORLD_SIZE"] == "1" and environ["RANK"] == "0" and environ["MASTER_PORT"] == "29500"
    file.write_text("not json")
    for path in (file, tmp_path / "nothing.json"):
        with pytest.raises(ConfigError, match="can't be read"):
            zero_stage({"deepspeed": str(path)})


@pytest.mark.slow
def test_each_of_two_processes_holds_half_and_the_losses_are_those_of_one(rows: Artifacts, one: RunFolder) -> None:
    run = trained(rows, "halves", *SHARDED)
    assert furthest(run, one) < 1e-3
    assert "sharded: each of 2 processes holds 50% of the weights" in record_of(run).choices
    assert len(list((run.checkpoint(50) / "sharded").glob("*.distcp"))) == 2
    assert AutoModelForCausalLM.from_pretrained(run.model).num_parameters() == record_of(run).parameters
    assert not list(run.model.glob("*.distcp"))


@pytest.mark.slow
def test_a_sharded_checkpoint_goes_on_whole_and_in_four_parts(rows: Artifacts, one: RunFolder) -> None:
    run = stopped(rows, "parts", *SHARDED)
    copy = rows.run("parts-copy")
    shutil.copytree(run.path, copy.path)
    for folder, count in ((run, "1"), (copy, "4")):
        code, _, err = ptk(rows, "--resume", folder.name, "--processes", count)
        assert code == 0, err
        assert furthest(folder, one) < 1e-3


@pytest.mark.slow
def test_a_whole_checkpoint_goes_on_in_parts(rows: Artifacts, one: RunFolder) -> None:
    run = stopped(rows, "made-whole")
    code, _, err = ptk(rows, "--resume", run.name, *SHARDED)
    assert code == 0, err
    assert furthest(run, one) < 1e-3
