"""A base's folder that holds another tokenizer than when its rows were prepared is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ModelError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.rows.prepared import open_prepared
from tests.support.preparing import small_config
from tests.support.tiny import make_model, make_tokenizer


def swap_two_entries(folder: Path) -> None:
    """Give two letters each other's id."""
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    entries = spec["model"]["vocab"]
    entries["t"], entries["h"] = entries["h"], entries["t"]
    file.write_text(json.dumps(spec), encoding="utf-8")


def test_train_and_prepare_notice_another_tokenizer_in_the_bases_folder(tmp_path: Path, prose: str) -> None:
    base, artifacts = make_model(tmp_path / "base"), Artifacts(tmp_path / "artifacts")
    make_tokenizer(base)
    (tmp_path / "a.txt").write_text(prose[:20_000], encoding="utf-8")
    config = changed(small_config(tmp_path / "a.txt"), model__base=str(base), tokenizer__vocab_size="auto")
    prepare(config, artifacts)
    assert prepare(config, artifacts).reused
    open_prepared(config, artifacts, read_manifest(artifacts), "cpu")
    swap_two_entries(base)
    with pytest.raises(ModelError, match="which was made for it before its files changed"):
        open_prepared(config, artifacts, read_manifest(artifacts), "cpu")
    assert not prepare(config, artifacts).reused
    open_prepared(config, artifacts, read_manifest(artifacts), "cpu")
