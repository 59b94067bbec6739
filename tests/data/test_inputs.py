"""What a user types for an input names that file, whatever is in the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.errors import DataError
from pretrain_cli.storage import user_path


@pytest.mark.parametrize("name", ["./~/f.txt", "~tilde/t.txt"])
def test_a_tilde_in_a_name_is_part_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "f.txt").write_text("at home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    file = Path(tmp_path, *Path(name).parts)
    file.parent.mkdir()
    file.write_text("here")
    found = find_files([name])
    assert [Path(entry.path).read_text() for entry in found] == ["here"]
    assert user_path("~/f.txt") == home / "f.txt"


@pytest.mark.parametrize("name", ["owner/name", "owner/name:test"])
def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch, name: str) -> None:
    from huggingface_hub import HfApi

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("it would retry for 26 s"))
    config = Config.model_validate({"data": {"inputs": [f"hf://datasets/{name}"]}})
    with pytest.raises(DataError, match=r"The Hub doesn't answer, so the data set 'owner/name' can't be read"):
        prepare(config, Artifacts(tmp_path / "artifacts"))
