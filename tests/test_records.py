"""The manifest and run.json are typed: what is damaged, older or newer is said with the file's name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from unittest.mock import ANY

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.manifest import read_manifest, write_manifest
from pretrain_cli.run_record import RunRecord, RunRecordFile, read_run_record, write_run_config
from pretrain_cli.training.keeping.resume import read_config

FIXTURE = Path(__file__).parent / "fixtures" / "artifacts-0.1.0.tar.gz"


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Artifacts(tmp_path / "artifacts")


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_manifest_is_written_as_it_was_read(artifacts: Artifacts) -> None:
    before = json.loads(artifacts.manifest.read_text())
    write_manifest(artifacts.manifest, read_manifest(artifacts))
    assert json.loads(artifacts.manifest.read_text()) == {
        **before,
        "input_files": None,
        "base_tokenizer": "",
        "text_columns": {},
        "xxh3": ANY,
        "files": {},
        "held_out": None,
        "inputs_total": 0,
        "inputs_stamp": "",
        "inputs_hashed_ns": 0,
        "settings": {**before["settings"], "fim_rate": 0.0},
        "sources": {name: {**source, "rows": 0} for name, source in before["sources"].items()},
        "ledger": {**before["ledger"], "tokens": {**before["ledger"]["tokens"], "rearranged": 0}},
        "tokenizer": {**before["tokenizer"], "longest_word": 0, "round_trip": None, "extension": None},
        "statistics": {**before["statistics"], "row_choice": ""},
    }


@pytest.mark.parametrize(("version", "told"), [(99, "newer ptk"), (1, "format 1"), ("2", "format '2'")])
def test_a_manifest_of_another_version_is_named(artifacts: Artifacts, version: object, told: str) -> None:
    change(artifacts.manifest, version=version)
    with pytest.raises(DataError) as caught:
        read_manifest(artifacts)
    assert told in caught.value.message and "ptk prepare" in caught.value.hint


def test_a_damaged_manifest_says_where(artifacts: Artifacts) -> None:
    change(artifacts.manifest, train={"rows": "many"})
    with pytest.raises(DataError, match=r"damaged at train\.rows"):
        read_manifest(artifacts)


def test_a_run_record_of_version_0_1_0_is_read_and_written_with_its_version(artifacts: Artifacts) -> None:
    run = artifacts.run("whole")
    before = json.loads(run.record.read_text())
    record = read_run_record(run)
    assert record is not None and record.result is not None and record.plan is not None
    RunRecordFile(run.record).begin(record, status="finished")
    after = json.loads(run.record.read_text())
    assert after["plan"].pop("step_seconds") is None  # 0.1.0 didn't record these
    assert (after["plan"].pop("method"), after["plan"].pop("lora_rank")) == ("full", 0)
    assert after["plan"].pop("fill") == 1.0
    assert after["result"].pop("planned_steps") is after["result"].pop("validation_rows") is None
    assert after["result"].pop("outcome") == after["result"].pop("tracking") == ""
    assert {key: after[key] for key in before} == before
    assert after["version"] == 1


@pytest.mark.parametrize("name", ["manifest", "record", "config"])
def test_a_record_that_was_changed_by_hand_says_how_to_keep_the_change(artifacts: Artifacts, name: str) -> None:
    run = artifacts.run("whole")
    file = {"manifest": artifacts.manifest, "record": run.record, "config": run.config}[name]
    read = {"manifest": lambda: read_manifest(artifacts), "record": lambda: read_run_record(run)}.get(
        name, lambda: read_config(run)
    )
    seal = {
        "manifest": lambda: write_manifest(artifacts.manifest, read_manifest(artifacts)),
        "record": lambda: RunRecordFile(run.record).begin(read_run_record(run) or RunRecord()),
        "config": lambda: write_run_config(run, run.config.read_text()),
    }[name]
    read()  # version 0.1.0 wrote no hashes
    seal()
    whole = read()
    text = file.read_text()
    file.write_text(text.replace("512", "513", 1) if "512" in text else text.replace("0", "1", 1))
    with pytest.raises((DataError, ModelError), match="has other bytes than ptk wrote") as caught:
        read()
    assert 'remove the line with "xxh3"' in caught.value.hint
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "xxh3" not in line))
    assert read() is not None and whole is not None


def test_a_run_record_of_a_newer_version_is_named(artifacts: Artifacts) -> None:
    change(artifacts.run("whole").record, version=99)
    with pytest.raises(ModelError, match="newer ptk"):
        read_run_record(artifacts.run("whole"))


def test_a_run_without_a_record_has_none(artifacts: Artifacts) -> None:
    assert read_run_record(artifacts.run("never")) is None
