"""A sealed text notices every changed byte, and a cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_cli.sealing import broken_seal, is_as_sealed, open_seal, sealed
from pretrain_cli.storage import read_json, write_sealed_json
from pretrain_cli.webpage import document

TEXTS = {
    "json": lambda path: write_sealed_json(path, {"name": "ünïcode", "xxh3": "an old one", "steps": 4}),
    "toml": lambda path: path.write_text(sealed(open_seal() + "[train]\nmax_steps = 4\n"), "utf-8"),
    "html": lambda path: path.write_text(document("A page", ["<p>4</p>"]), "utf-8"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_sealed_text_notices_every_other_byte_and_a_cut(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    TEXTS[kind](file)
    content = file.read_bytes()
    assert is_as_sealed(content) and not broken_seal(file)
    start = content.index(b"xxh3")
    for place in range(start + 4, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert not is_as_sealed(changed), (place, changed[place - 5 : place + 5])
    for end in (len(content) // 2, len(content) - 1):
        assert is_as_sealed(content[:end]) is False
    file.write_bytes(content + b" ")
    assert broken_seal(file) == f"{file} has other bytes than ptk wrote"


def test_a_sealed_object_is_json_with_its_hash_as_the_first_key(tmp_path: Path) -> None:
    write_sealed_json(tmp_path / "a.json", {"b": 1, "a": 0.1})
    assert list(read_json(tmp_path / "a.json")) == ["xxh3", "b", "a"]
    assert json.loads((tmp_path / "a.json").read_text())["a"] == 0.1


def test_a_text_without_a_seal_is_neither_whole_nor_broken() -> None:
    assert is_as_sealed(b'{"steps": 4}') is None and is_as_sealed(b"") is None
