"""Folders that are nested deeper than Python's own ways go, or than a path may be long, are walked, removed or told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_cli.trees import everything_in, remove_tree, walk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows makes no such folders")
LONG = "n" * 200


def nest(folder: Path, levels: int, name: str = "d", file: str = "b.txt") -> None:
    """Make ``levels`` folders in one another, with a file in the last."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=here), "w") as text:
        text.write("Text far below. " * 100)
    os.close(here)


@pytest.mark.parametrize(("levels", "name"), [(1_100, "d"), (30, LONG)])
def test_a_deep_folder_is_removed(tmp_path: Path, levels: int, name: str) -> None:
    nest(tmp_path / "a", levels, name)
    nest(tmp_path / "kept", 1)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "a")
    assert sorted(path.name for path in everything_in(tmp_path)) == ["b.txt", "d", "kept"]


def test_all_in_a_deep_folder_is_found(tmp_path: Path) -> None:
    nest(tmp_path / "a", 1_100)
    assert len(everything_in(tmp_path)) == 1_102
    nest(tmp_path / "b", 30, LONG)
    refused: list[OSError] = []
    assert sum(len(files) for _, files in walk(tmp_path, refused.append)) == 1 and len(refused) == 1
    with pytest.raises(OSError, match="too long"):
        everything_in(tmp_path)
    remove_tree(tmp_path)  # pytest can't


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "name"), [(1_100, "d"), (30, LONG)])
def test_prepare_tells_of_folders_that_are_nested_too_deep(ptk, empty: Path, levels: int, name: str) -> None:
    (empty / "in").mkdir()
    (empty / "in" / "a.txt").write_text("Some words of a text. " * 500)
    nest(empty / "in", levels, name)
    nest(empty / "in" / ".hidden", levels, name)
    outcome = ptk("prepare", "in")
    assert outcome.code == 0 and "1 folder without permission, or nested too deep" in outcome.out
    outcome = ptk("prepare", "in", "--on-error", "fail")
    assert outcome.code == 3 and "nested too deep to be read" in outcome.err and len(outcome.error_lines) == 2
    assert all(len(line) < 400 for line in outcome.error_lines)
    remove_tree(empty / "in")


@pytest.mark.slow
def test_a_run_with_deep_folders_is_removed_but_for_what_is_foreign(ptk, empty: Path) -> None:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.storage import write_json, write_text

    run = Artifacts(empty / "artifacts").run("first")
    write_json(run.record, {"status": "finished", "steps": 2, "tokens": 512, "base": ""})
    write_text(run.config, "[train]\nseed = 1\n")
    for folder in ("wandb/offline-run-20261130_201500-abc", "mine"):
        (run.path / folder).mkdir(parents=True)
        nest(run.path / folder, 1_100)
        nest(run.path / folder, 30, LONG)
    outcome = ptk("runs", "remove", "first", "--yes")
    assert outcome.code == 0 and "keeps what ptk didn't write: mine." in outcome.err
    assert [entry.name for entry in run.path.iterdir()] == ["mine"]
    remove_tree(empty / "artifacts")


def test_a_path_that_is_too_long_is_two_lines(ptk, empty: Path) -> None:
    outcome = ptk("prepare", "n/" * 3_000)
    assert outcome.code == 2 and "File name too long" in outcome.err and len(outcome.error_lines) == 2
    assert all(len(line) < 400 for line in outcome.error_lines)
