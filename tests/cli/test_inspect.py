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


def test_tokens_have_borders_and_ids_and_control_characters_are_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("The whale\x1b[2J swam past. " * 100, encoding="utf-8")
    arguments = ["--vocab-size", "300", "--sequence-length", "32", "--quiet", "--validation-fraction", "0"]
    assert run(["prepare", "data.txt", *arguments]) == 0
    capsys.readouterr()
    assert run(["inspect", "--row", "0", "--tokens"]) == 0
    out = capsys.readouterr().out
    assert "<|bos|>│" in out and "␛[" in out and "\x1b" not in out
    *_, ids = out.strip().splitlines()
    assert len(ids.split()) == 32 and ids.split()[0] == "0"


def test_each_piece_is_told_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    records = "".join(json.dumps({"text": f"record {number} of fish"}) + "\n" for number in range(5))
    for name, content in (
        ("a.txt", "whales swim " * 9),
        ("b.jsonl", records + "no json\n"),
        ("c.txt", "ships sail " * 9),
    ):
        Path(name).write_text(content)
    arguments = ["--vocab-size", "300", "--sequence-length", "1000", "--quiet", "--validation-fraction", "0"]
    assert run(["prepare", "a.txt", "b.jsonl", "c.txt", *arguments, "--on-error", "skip"]) == 0
    capsys.readouterr()
    assert run(["inspect", "--json"]) == 0
    pieces = json.loads(capsys.readouterr().out)["pieces"]
    assert {piece["file"] for piece in pieces} == {"a.txt", "b.jsonl", "c.txt"}
    word = {"a.txt": "whales", "b.jsonl": "fish", "c.txt": "ships"}
    assert len(pieces) == 7 and all(word[piece["file"]] in piece["text"] for piece in pieces)
    assert run(["inspect"]) == 0
    assert "document 1 of b.jsonl, from its start" in capsys.readouterr().out
    assert run(["inspect", "--stats"]) == 0
    assert "1 not json" in capsys.readouterr().out


def test_the_statistics_tell_all_there_is_in_80_columns(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", "--stats"]) == 0
    out = capsys.readouterr().out
    for label in (
        "documents",
        "tokens",
        "packing",
        "fill",
        "for training",
        "held out",
        "from text",
        "left out",
        "lengths",
    ):
        assert f"  {label}" in out
    assert run(["inspect", "--stats", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["sources"]["text"]["bytes"] + numbers["sources"]["text"]["validation_bytes"] == numbers["bytes"]
