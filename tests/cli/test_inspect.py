"""`ptk inspect` shows what prepare made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.cli.app import run


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("The whale swam past the ship at dawn. " * 400, encoding="utf-8")
    assert run(["prepare", "data.txt", "--vocab-size", "300", "--sequence-length", "32", "--quiet"]) == 0
    capsys.readouterr()
    return tmp_path


def test_a_row_is_shown_as_text(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--row", "1"]) == 0
    assert "whale" in capsys.readouterr().out


def test_the_numbers_are_one_json_object(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 1


def test_a_row_that_is_not_there_is_refused_with_the_range(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--row", "1000000"]) == 2
    assert "has rows 0 to" in capsys.readouterr().err
