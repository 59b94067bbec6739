"""`ptk runs`, on records as a training run leaves them."""

from __future__ import annotations

import json

import pytest

from pretrain_cli.artifacts import Artifacts, write_json, write_text


@pytest.fixture
def two_runs(empty):
    artifacts = Artifacts(empty / "artifacts")
    for index, name in enumerate(("first", "second")):
        run = artifacts.run(name)
        write_json(
            run.record, {"status": "finished", "started": "2026-01-01T10:00:00", "steps": 2, "tokens": 512, "base": ""}
        )
        write_text(run.config, f"[train]\nseed = {index}\n")
        lines = [{"step": step, "loss": 5.0 - step - index} for step in (1, 2)]
        write_text(run.metrics, "".join(json.dumps(line) + "\n" for line in lines))
        run.model.mkdir()
    write_text(artifacts.latest, "second\n")
    return artifacts


def test_list_shows_each_run(ptk, two_runs) -> None:
    assert [run["name"] for run in ptk("runs", "list", "--json").json["runs"]] == ["first", "second"]
    assert "first" in ptk("runs", "list").out


def test_no_runs_is_no_error(ptk) -> None:
    outcome = ptk("runs", "list")
    assert outcome.code == 0 and "ptk train" in outcome.err


def test_compare_names_the_settings_that_differ(ptk, two_runs) -> None:
    assert ptk("runs", "compare", "first", "second", "--json").json["differences"] == {"train.seed": [0, 1]}


def test_remove_asks_unless_told(ptk, two_runs, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused = ptk("runs", "remove", "first")
    assert refused.code == 2 and "--yes" in refused.err
    assert ptk("runs", "remove", "first", "--yes").code == 0
    assert two_runs.run_names() == ["second"]


def test_an_unknown_run_names_those_that_exist(ptk, two_runs) -> None:
    outcome = ptk("runs", "show", "thrid")
    assert outcome.code == 4 and "second" in outcome.err
