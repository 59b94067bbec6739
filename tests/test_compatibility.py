"""Folders that an earlier version of ptk wrote are opened, resumed, evaluated and generated from."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.generation.run import generate
from pretrain_cli.storage import read_lines
from pretrain_cli.training.run import train

FIXTURE = Path(__file__).parent / "fixtures" / "artifacts-0.1.0.tar.gz"
"""Made by version 0.1.0: a base, rows of a text, a run `whole` of 40 steps and a run `broken`, the same killed at step
25 with a checkpoint of step 20."""


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Artifacts(Path("artifacts"))


@pytest.mark.slow
def test_a_run_of_version_0_1_0_resumes_to_the_same_losses(artifacts: Artifacts) -> None:
    whole = read_lines(artifacts.run("whole").metrics)
    config = load_config(flags={"tracking.report_to": "none"}, environ={}).config
    result = train(config, artifacts, resume="broken")
    assert result.status == "finished"
    resumed = read_lines(artifacts.run("broken").metrics)
    assert [line["step"] for line in resumed] == list(range(1, 41))
    # Bit for bit where the same kernels compute; another CPU rounds differently.
    assert [line["loss"] for line in resumed] == pytest.approx([line["loss"] for line in whole], abs=1e-3)


def test_a_finished_run_of_version_0_1_0_is_not_trained_again(artifacts: Artifacts) -> None:
    before = artifacts.run("whole").metrics.read_bytes()
    result = train(load_config(environ={}).config, artifacts, resume="whole")
    assert (result.status, result.steps) == ("finished", 40)
    assert artifacts.run("whole").metrics.read_bytes() == before


@pytest.mark.slow
def test_a_run_of_version_0_1_0_is_evaluated_and_generated_from(artifacts: Artifacts) -> None:
    config = load_config(flags={"generate.max_tokens": 4}, environ={}).config
    found = evaluate(config, artifacts)
    assert found.models[0].texts[0].bits_per_byte > 0
    assert generate(config, artifacts, prompts=["My fellow"]).samples[0].tokens == 4


def test_rows_of_version_0_1_0_are_kept_where_they_match(artifacts: Artifacts) -> None:
    flags = {"data.inputs": ("speeches.txt",), "model.base": "base", "data.sequence_length": 64}
    assert prepare(load_config(flags=flags, environ={}).config, artifacts).reused
