"""What a user types for an input names that file, whatever is in the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli.data.reading.inputs import find_files
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
