"""A base whose files say something else than when its rows were prepared, or a run began, is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.errors import ModelError
from pretrain_cli.exporting.run import export
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.rows.prepared import open_prepared
from pretrain_cli.training.run import train
from tests.support.preparing import small_config
from tests.support.runs import prepare_text, small
from tests.support.tiny import make_model, make_tokenizer


def swap_two_entries(folder: Path) -> None:
    """Give two letters each other's id."""
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    entries = spec["model"]["vocab"]
    entries["t"], entries["h"] = entries["h"], entries["t"]
    file.write_text(json.dumps(spec), encoding="utf-8")


def check_noticed(config: Config, artifacts: Artifacts, swap: Callable[[], None]) -> None:
    """Train refuses the rows of before ``swap``, and prepare makes them again."""
    prepare(config, artifacts)
    assert prepare(config, artifacts).reused
    open_prepared(config, artifacts, read_manifest(artifacts), "cpu")
    swap()
    with pytest.raises(ModelError, match="which was made for it before its files changed"):
        open_prepared(config, artifacts, read_manifest(artifacts), "cpu")
    assert not prepare(config, artifacts).reused
    open_prepared(config, artifacts, read_manifest(artifacts), "cpu")


def test_train_and_prepare_notice_another_tokenizer_in_the_bases_folder(tmp_path: Path, prose: str) -> None:
    base, artifacts = make_model(tmp_path / "base"), Artifacts(tmp_path / "artifacts")
    make_tokenizer(base)
    (tmp_path / "a.txt").write_text(prose[:20_000], encoding="utf-8")
    config = changed(small_config(tmp_path / "a.txt"), model__base=str(base), tokenizer__vocab_size="auto")
    check_noticed(config, artifacts, lambda: swap_two_entries(base))


def test_a_gguf_file_that_was_replaced_by_one_with_another_tokenizer_is_noticed(tmp_path: Path, prose: str) -> None:
    pytest.importorskip("gguf")
    folder, artifacts = make_model(tmp_path / "base"), Artifacts(tmp_path / "artifacts")
    make_tokenizer(folder)
    file = next(file for file in export(artifacts, to="gguf", run=str(folder)).files if file.suffix == ".gguf")
    (tmp_path / "a.txt").write_text(prose[:20_000], encoding="utf-8")
    config = changed(small_config(tmp_path / "a.txt"), model__base=str(file), tokenizer__vocab_size="auto")

    def replace() -> None:
        swap_two_entries(folder)
        again = export(Artifacts(tmp_path / "again"), to="gguf", run=str(folder))
        file.write_bytes(next(file for file in again.files if file.suffix == ".gguf").read_bytes())

    check_noticed(config, artifacts, replace)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resume_notices_that_the_bases_config_makes_another_model_of_its_weights(
    tmp_path: Path, prose: str, method: str
) -> None:
    base = make_model(tmp_path / "base")
    artifacts = prepare_text(tmp_path / "rows", prose[:24_000], model__base=str(base), tokenizer__vocab_size="auto")
    course = {"model__size": "auto", "model__layers": None, "train__method": method, "train__max_steps": 2}
    train(small(**course), artifacts, run_name="a")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    settings["rope_parameters"]["rope_theta"] = 77.0
    (base / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    longer = changed(Config(), train__max_steps=4)
    with pytest.raises(ModelError, match="another rope_parameters in the base's config"):
        train(longer, artifacts, resume="a")
    settings["rope_parameters"]["rope_theta"] = 10000.0
    (base / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert train(longer, artifacts, resume="a").steps == 4
