"""General text is mixed into the user's own in the share that is asked for, and never held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ConfigError, DataError, UsageError
from pretrain_cli.generation.replay import write_own_replay
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.rows.prepared import check_prepared
from tests.support.tiny import make_model

OWN = [f"Chapter {number} of the book of whales, which tells of the sea. " * 12 for number in range(60)]
OTHER = [f"A recipe, number {number}: take flour and water, and stir them well. " * 12 for number in range(400)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, texts in (("own", OWN), ("other", OTHER)):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def settings(folder: Path, **values: Any) -> Config:
    given = {
        "data__inputs": [str(folder / "own.jsonl")], "data__workers": 1, "data__sequence_length": 32,
        "tokenizer__vocab_size": 400, "tokenizer__engine": "tokenizers",
        "data__replay_source": str(folder / "other.jsonl"),
    }  # fmt: skip
    return changed(Config(), **{**given, **values})


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_of_all_text_to_train_on(folder: Path, share: float) -> None:
    artifacts = Artifacts(folder / "artifacts")
    prepare(settings(folder, data__replay=share), artifacts)
    manifest = read_manifest(artifacts)
    sources = manifest.sources
    trained = sources["replay"].bytes / (sources["replay"].bytes + sources["text"].bytes)
    assert abs(trained - share) < 0.1 * share + 0.02
    assert sources["replay"].validation_documents == 0 and sources["text"].validation_bytes > 0


def test_what_is_held_out_is_what_is_held_out_without_replay(folder: Path) -> None:
    both = []
    for name, share in (("with", 0.3), ("without", 0.0)):
        artifacts = Artifacts(folder / name)
        prepare(settings(folder, data__replay=share), artifacts)
        record = read_manifest(artifacts)
        both.append((record.sources["text"].validation_bytes, record.sources["text"].validation_documents))
    assert both[0] == both[1]


def test_a_text_that_is_too_short_is_used_several_times_and_said(folder: Path) -> None:
    lines = (folder / "other.jsonl").read_text().splitlines(keepends=True)
    (folder / "little.jsonl").write_text("".join(lines[:5]))
    artifacts = Artifacts(folder / "artifacts")
    prepare(settings(folder, data__replay=0.5, data__replay_source=str(folder / "little.jsonl")), artifacts)
    replayed = read_manifest(artifacts).sources["replay"]
    assert replayed.documents == 20


def test_prepared_again_nothing_is_drawn_or_prepared_anew(folder: Path) -> None:
    artifacts = Artifacts(folder / "artifacts")
    prepare(settings(folder, data__replay="auto"), artifacts)
    kept = next(artifacts.replay.iterdir())
    before = kept.stat().st_mtime_ns
    assert prepare(settings(folder, data__replay="auto"), artifacts).reused
    assert kept.stat().st_mtime_ns == before
    assert not prepare(settings(folder, data__replay=0.2), artifacts).reused


def test_the_base_writes_it_itself_once(folder: Path) -> None:
    base = make_model(folder / "base")
    config = settings(
        folder, data__replay=0.02, data__replay_source="", model__base=str(base), tokenizer__vocab_size="auto"
    )
    artifacts = Artifacts(folder / "artifacts")
    with pytest.raises(DataError, match="no general text"):
        prepare(config, artifacts)
    write_own_replay(config, artifacts)
    file = next(artifacts.replay.iterdir())
    texts = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    assert len(set(texts)) == len(texts) and sum(map(len, texts)) > 500
    before = file.read_bytes()
    write_own_replay(config, artifacts)
    assert file.read_bytes() == before and len(list(artifacts.replay.iterdir())) == 1
    prepare(config, artifacts)
    assert read_manifest(artifacts).sources["replay"].tokens > 0


def test_what_is_missing_is_said(folder: Path) -> None:
    artifacts = Artifacts(folder / "artifacts")
    with pytest.raises(UsageError, match="neither a base"):
        write_own_replay(settings(folder, data__replay="auto", data__replay_source=""), artifacts)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        prepare(settings(folder, data__replay=0.1, data__replay_source=str(folder / "none.jsonl")), artifacts)
    prepare(settings(folder), artifacts)
    with pytest.raises(ConfigError, match=r"data\.replay"):
        check_prepared(changed(Config(), data__replay=0.1), read_manifest(artifacts))
