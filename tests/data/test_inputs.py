"""What a user types for an input names that file, whatever is in the path."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.reading.globs import matches
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


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_glob_lists_each_folder_once_though_links_go_in_circles(tmp_path: Path) -> None:
    texts, other = tmp_path / "texts", tmp_path / "other"
    for folder in (texts / "deep" / "er", other / "below"):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("text")
    for number in range(3):
        (texts / f"{number}").symlink_to(".")
        (texts / "deep" / f"{number}").symlink_to("..")
        (texts / f"other-{number}").symlink_to(other)
    found = [Path(entry.path).relative_to(texts).as_posix() for entry in find_files([f"{texts}/**/*.txt"])]
    assert found == ["deep/er/a.txt", "other-0/below/a.txt"]
    assert len(find_files([f"{texts}/**"])) == len(find_files([f"{texts}/**/**/a.*"])) == 2


@pytest.mark.parametrize(
    "pattern", ["*/*.txt", "**/*.txt", "**/b/**/*", "a/**", "**/b/*", "[ab]/**/c.t?t", "no/**/*.txt", "**"]
)
def test_a_glob_names_what_it_names_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    for name in ("a/b/c.txt", "a/b/d.md", "b/c.txt", "a/b/b/c.txt", "b/.hidden/c.txt", ".c.txt", "[x]/b/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for start in ("", f"{tmp_path}/"):
        expected = {path for path in glob.glob(start + pattern, recursive=True) if Path(path).is_file()}
        assert {path for path in matches(start + pattern) if Path(path).is_file()} == expected
