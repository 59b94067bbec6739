"""What happens where a file or a record can't be read, with ``data.on_error`` as it is by default."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from pretrain_cli.data.prepare import PrepareResult
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from tests.support.preparing import PROSE, Preparing


def lines(number: int) -> list[str]:
    return [json.dumps({"text": f"{PROSE} {at}"}) for at in range(number)]


def broken_among_good(folder: Path) -> Path:
    """Nine text files, a PDF and a DOCX that are none."""
    folder.mkdir()
    for at in range(9):
        (folder / f"{at}.txt").write_text(f"{PROSE} {at}")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    (folder / "broken.docx").write_bytes(b"PK and no more")
    return folder


def warned(result: PrepareResult, *words: str) -> str:
    (found,) = [warning for warning in result.warnings if all(word in warning for word in words)]
    return found


@pytest.mark.parametrize("tokenizer", ["given", "trained"])
def test_files_that_cannot_be_read_among_others_are_left_out_loudly(
    preparing: Preparing, byte_level: Path, tmp_path: Path, tokenizer: str
) -> None:
    path = broken_among_good(tmp_path / "texts")
    result, artifacts = preparing(path, tokenizer=byte_level if tokenizer == "given" else "")
    assert "2 files can't be read" in warned(result, "broken.pdf", "broken.docx", f"All are in {artifacts.rejected}.")
    account = read_manifest(artifacts).input_files
    assert account is not None and (account.read_files, account.skipped_files) == (9, 2)
    with pytest.raises(DataError, match=r"broken.docx can't be read") as caught:
        preparing(path, on_error="fail", into="strict")
    assert "--on-error skip" in caught.value.hint


def test_what_nobody_can_read_is_an_error(preparing: Preparing, tmp_path: Path) -> None:
    path = broken_among_good(tmp_path / "texts")
    with pytest.raises(DataError, match=r"^[^ ]*broken.pdf can't be read") as caught:
        preparing(path / "broken.pdf")
    assert "--on-error skip" in caught.value.hint
    for settings in ({}, {"tokenizer": ""}):  # given, and trained on the text
        with pytest.raises(DataError, match=r"2 of 2 files can't be used, the first: .*broken.pdf"):
            preparing(path / "broken.pdf", path / "broken.docx", **settings)


@pytest.mark.parametrize("tokenizer", ["given", "trained"])
def test_few_bad_records_are_left_out_and_many_are_an_error(
    preparing: Preparing, byte_level: Path, tmp_path: Path, tokenizer: str
) -> None:
    path = tmp_path / "a.jsonl"
    good, chosen = lines(40), byte_level if tokenizer == "given" else ""
    path.write_text("\n".join(['{"version": 1}', *good[:20], good[20][:30], *good[21:]]) + "\n")
    result, _ = preparing(path, tokenizer=chosen)
    assert result.dropped == {"no_text_column": 1, "not_json": 1}
    found = warned(result, "2 of 41 documents can't be used and are left out")
    assert "a.jsonl, line 1, byte 0: no text column: there is no 'text'" in found and "rejected.jsonl" in found
    path.write_text("\n".join([*good[:20], good[20][:30], *good[21:]]) + "\n")
    result, artifacts = preparing(path, tokenizer=chosen)
    listed = f"It is listed in {artifacts.rejected}."
    assert "the first" not in warned(result, "1 of 40 documents can't be used and is left out: ", listed)
    path.write_text("\n".join([*good[:8], good[8][:30], *good[9:12], good[12][:30]]) + "\n")
    with pytest.raises(DataError, match=r"2 of 13 documents can't be used, the first: .*a.jsonl, line 9, byte"):
        preparing(path, tokenizer=chosen)
    result, _ = preparing(path, tokenizer=chosen, on_error="skip")
    assert result.dropped == {"not_json": 2}


def test_a_file_that_is_cut_short_among_others_is_used_up_to_the_cut(preparing: Preparing, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PROSE)
    noise = random.Random(0)
    whole = [json.dumps({"text": f"{PROSE} {noise.random()} {at}"}) for at in range(3000)]
    packed = gzip.compress("\n".join(whole).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    result, _ = preparing(tmp_path / "a.txt", tmp_path / "b.jsonl.gz")
    assert "b.jsonl.gz can't be read" in warned(result, "What comes before is used, the rest is left out.")
    assert 500 < result.documents < 2500


def test_an_output_without_a_bad_record_matches_whatever_is_done_about_them(
    preparing: Preparing, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(PROSE * 20)
    preparing(tmp_path / "a.txt", on_error="fail")
    assert preparing(tmp_path / "a.txt")[0].reused
    path = broken_among_good(tmp_path / "texts")
    preparing(path, on_error="skip", into="other")
    with pytest.raises(DataError, match="can't be read"):
        preparing(path, on_error="fail", into="other")
