"""A folder in an artifact folder that is a link leads to somebody's files: nothing is removed or written there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import UsageError
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.model.gguf_reading import convert_gguf
from pretrain_cli.model.kept import keep
from pretrain_cli.training.run import train
from tests.support.commands import ptk, refused
from tests.support.preparing import PROSE, small_config
from tests.support.runs import prepare_text, small
from tests.support.tiny import make_model, make_tokenizer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_resume_rotates_no_checkpoints_behind_a_link(tmp_path: Path) -> None:
    mine = prepare_text(tmp_path / "mine", PROSE[:24_000])
    train(small(train__max_steps=2, train__save_steps=1), mine, run_name="r")
    other = Artifacts(tmp_path / "other")
    shutil.copytree(mine.root, other.root)
    shutil.rmtree(other.run("r").checkpoints)
    other.run("r").checkpoints.symlink_to(mine.run("r").checkpoints)
    before = content_of(mine.root)
    with pytest.raises(UsageError, match="checkpoints is a link to another folder"):
        train(changed(Config(), train__max_steps=4, train__keep=1), other, resume="r")
    shutil.rmtree(other.root / "evaluation", ignore_errors=True)
    other.run("r").evaluation.symlink_to(mine.root)
    (tmp_path / "a.txt").write_text(PROSE[:2000])
    with pytest.raises(UsageError, match="evaluation is a link to another folder"):
        evaluate(changed(Config(), evaluate__on=[str(tmp_path / "a.txt")]), other, models=["r"])
    assert content_of(mine.root) == before


@pytest.mark.parametrize("name", [".work", ".new"])
def test_prepare_clears_no_folder_behind_a_link(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs"
    for file in ("shards-0123456789abcdef/a.bin", "middles.ids", "rejected.jsonl", "train/a.arrow", ".ptk-1/x"):
        (theirs / file).parent.mkdir(parents=True, exist_ok=True)
        (theirs / file).write_text("theirs")
    before, artifacts = content_of(theirs), Artifacts(tmp_path / "artifacts")
    artifacts.data.mkdir(parents=True)
    (artifacts.data / name).symlink_to(theirs)
    (tmp_path / "a.txt").write_text(PROSE[:4000])
    with pytest.raises(UsageError, match="is a link to another folder"):
        prepare(small_config(tmp_path / "a.txt"), artifacts)
    assert content_of(theirs) == before


def test_a_kept_base_is_made_again_beside_what_others_put_there(tmp_path: Path) -> None:
    folder, theirs = tmp_path / "bases" / "m", tmp_path / "theirs"
    folder.parent.mkdir()
    for number in (1, 2):
        staging = tmp_path / f"staging-{number}"
        staging.mkdir()
        (staging / "config.json").write_text(json.dumps({"made": number}))
        keep(staging, folder)
        (folder / "notes.txt").write_text("mine")
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine/a.txt").write_text("mine")
    assert json.loads((folder / "config.json").read_text()) == {"made": 2}
    assert (folder / "notes.txt").read_text() == (folder / "mine/a.txt").read_text() == "mine"
    theirs.mkdir()
    (theirs / "config.json").write_text("theirs")
    linked = tmp_path / "bases" / "linked"
    linked.symlink_to(theirs)
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "config.json").write_text("new")
    with pytest.raises(UsageError, match="is a link to another folder"):
        keep(staging, linked)
    assert content_of(theirs) == {"config.json": b"theirs"}


def test_llama_cpp_replaces_its_own_files_alone(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from pretrain_cli.generation.engines import llama_cpp_engine
    from pretrain_cli.model.names import find_model
    from pretrain_cli.progress import SILENT

    model, artifacts = make_model(tmp_path / "m"), Artifacts(tmp_path / "artifacts")
    make_tokenizer(model)
    named = find_model(str(model), artifacts)
    first = llama_cpp_engine._converted(named, model, model, artifacts, SILENT)
    (first.parent / "mine.gguf").write_text("mine")
    older = first.rename(first.with_name("0" * 32 + ".gguf"))
    assert llama_cpp_engine._converted(named, model, model, artifacts, SILENT) == first
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name, "mine.gguf"] and not older.exists()
    assert convert_gguf(first, artifacts).is_dir()
    shutil.rmtree(first.parent)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / older.name).write_text("theirs")
    first.parent.symlink_to(theirs)
    with pytest.raises(UsageError, match="is a link to another folder"):
        llama_cpp_engine._converted(named, model, model, artifacts, SILENT)
    assert content_of(theirs) == {older.name: b"theirs"}


@pytest.mark.parametrize("to", ["theirs", "missing", ".lock"])
@pytest.mark.parametrize("name", ["data/.lock", "data/.tokenizer.lock"])
def test_a_lock_that_is_a_link_is_named_and_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, to: str
) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "a.txt").write_text(PROSE[:4000])
    artifacts = Artifacts(tmp_path / "artifacts")
    artifacts.data.mkdir(parents=True)
    link = artifacts.root / name
    link.symlink_to(link if to == ".lock" else tmp_path / to)
    with pytest.raises(UsageError, match=r"lock is a link") as told:
        prepare(small_config(tmp_path / "a.txt"), artifacts)
    assert str(link) in told.value.message and "Remove the link" in told.value.hint
    monkeypatch.chdir(tmp_path)
    refused(ptk(tmp_path, "prepare", "a.txt"), 2, f"artifacts/{name} is a link", "Remove the link")
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "missing").exists()


def test_the_lock_of_a_run_that_is_a_link_is_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    run = tmp_path / "artifacts" / "runs" / "a"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"version": 1, "run": "a", "status": "interrupted"}))
    (run / ".lock").symlink_to(tmp_path / "theirs")
    refused(ptk(tmp_path, "runs", "remove", "a", "--yes"), 2, "runs/a/.lock is a link", "Remove the link")
    assert (tmp_path / "theirs").read_text() == "theirs" and run.is_dir()
