"""A record that is too long is a bad record, found before it is in memory, and every byte of it is counted."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.data.reading.documents import Document, DocumentBatch, Record, Rejected
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from tests.support.commands import refused
from tests.support.preparing import PROSE, Preparing, check_ledger

LIMIT = 100_000


def records(path: Path) -> tuple[list[Record], ReadSettings]:
    settings = ReadSettings(max_record_bytes=LIMIT)
    return [record for file in find_files([str(path)]) for record in read(Span(file), settings)], settings


def texts(found: list[Record]) -> list[str]:
    return [text for record in found if isinstance(record, DocumentBatch) for text in record.texts] + [
        record.text for record in found if isinstance(record, Document)
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("size", [LIMIT, 700_000, 3_000_000])
def test_a_long_line_is_rejected_and_the_lines_around_it_are_read(tmp_path: Path, ending: str, size: int) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in ("first", "x" * size, "second", "third")]
    content = "".join(lines).encode()
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    found, settings = records(path)
    assert texts(found) == ["first", "second", "third"]
    (long,) = [record for record in found if isinstance(record, Rejected)]
    assert (long.reason, long.line, long.offset) == ("too_long", 2, len(lines[0]))
    assert "data.max_record_bytes" in long.detail and "100,000" in long.detail
    assert long.size + settings.skipped_bytes.get("too_long", 0) == len(lines[1])


@pytest.mark.parametrize("kind", ["json", "html"])
def test_a_file_that_is_one_record_has_the_same_limit(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.{kind}").write_text(json.dumps([{"text": "y" * 2 * LIMIT}]), encoding="utf-8")
    found, _ = records(tmp_path / f"a.{kind}")
    assert [record.reason for record in found if isinstance(record, Rejected)] == ["too_long"]


@pytest.mark.parametrize("field", ['"' + "a,b\n" * LIMIT, "z" * 10 * LIMIT], ids=["quote never closed", "one line"])
def test_a_csv_field_that_does_not_end_is_named(tmp_path: Path, field: str) -> None:
    (tmp_path / "a.csv").write_text(f"text\nfirst\n{field}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line [\d,]+: too long: more than 100,000 bytes \(data.max_record_bytes\)"):
        records(tmp_path / "a.csv")


def test_lines_that_end_at_the_border_of_a_block_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain_cli.data.reading import input_files

    monkeypatch.setattr(input_files, "BLOCK_BYTES", 16)
    rows = [f"text number {number}" for number in range(200)]
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "a.csv").write_text(end.join(["text", *rows, ""]), encoding="utf-8", newline="")
        assert texts(records(tmp_path / "a.csv")[0]) == rows
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert texts(records(tmp_path / "a.jsonl")[0]) == rows


def test_skipped_long_records_add_up_in_the_ledger(preparing: Preparing, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{number} {PROSE * 20}"}) + "\n" for number in range(20)]
    lines.insert(5, json.dumps({"text": "x" * 2_000_000}) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    _, artifacts = preparing(tmp_path / "a.jsonl", on_error="skip", max_record_bytes=LIMIT, validation_fraction=0)
    check_ledger(artifacts)
    ledger = read_manifest(artifacts).ledger
    assert ledger.documents.dropped["too_long"] == 1 and ledger.bytes.dropped["too_long"] == len(lines[5])


def test_a_document_to_be_judged_as_a_whole_has_the_limit_and_one_that_is_not_has_none(
    preparing: Preparing, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(PROSE * 20_000, encoding="utf-8")
    (tmp_path / "b.txt").write_text(PROSE * 20, encoding="utf-8")
    inputs = [tmp_path / "a.txt", tmp_path / "b.txt"]
    result, _ = preparing(*inputs, max_record_bytes=LIMIT, into="plain")
    assert result.documents == 2
    result, _ = preparing(*inputs, max_record_bytes=LIMIT, into="by lines", cleaning=("nfc", "personal-data"))
    assert result.documents == 2 and set(result.cleaning_speed) == {"nfc", "personal-data"}
    options: dict[str, Any] = {"cleaning": ("nfc", "min-length"), "on_error": "skip"}
    result, artifacts = preparing(*inputs, max_record_bytes=LIMIT, into="cleaned", **options)
    check_ledger(artifacts)
    assert result.documents == 1 and result.dropped == {"too_long": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.html"])
def test_a_small_file_that_unpacks_to_a_gigabyte_takes_little_memory(tmp_path: Path, name: str) -> None:
    with gzip.open(tmp_path / f"{name}.gz", "wb", compresslevel=1) as out:
        out.write(b"text\n" if name.endswith("csv") else b'{"text": "')
        for _ in range(1000):
            out.write(b"x" * 1_000_000)
        out.write(b"\n" if name.endswith("csv") else b'"}\n')

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    done = subprocess.run(
        [sys.executable, "-m", "pretrain_cli", "prepare", f"{name}.gz"],
        cwd=tmp_path, capture_output=True, text=True, preexec_fn=limited, timeout=300,
    )  # fmt: skip
    refused(done, 3, "too long", "data.max_record_bytes")
