"""Many small files: few bytes of memory each, a small manifest, and a quick look at whether they are as they were."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pretrain_cli.data import fingerprint, input_list
from pretrain_cli.data.encoding import shard_encoder
from pretrain_cli.data.reading.documents import Document
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.input_files import InputFile, Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.plain_text import read_text
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.small_files import read_simple
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import INPUTS_SHOWN, read_manifest
from pretrain_cli.progress import Progress
from tests.support.preparing import PROSE, Preparing, row_bytes


def write_files(folder: Path, many: int) -> Path:
    for number in range(many):
        path = folder / f"{number % 7}" / f"{number:04d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}. {PROSE * 3}")
    return folder


def some_files() -> list[InputFile]:
    return [
        InputFile("/a/b c/x.txt", 3, 4, "text"),
        InputFile("/a/b c/y.jsonl.gz", 5, 6, "jsonl", "gzip", 1),
        InputFile("x.txt", 0, 1, "text"),
        InputFile("s3://bucket/key/z.txt", -1, 9, "text", "", 2),
        InputFile("/tmp/copy", 7, 8, "text", "", 0, "standard input"),
        InputFile(os.fsdecode(b"/a/caf\xe9.txt"), 1, 2, "text"),
    ]


def test_a_table_gives_back_the_files_that_it_was_given() -> None:
    table = FileTable(some_files())
    assert list(table) == some_files() and len(table) == 6
    assert table[-1] == some_files()[-1] and table[1:3] == some_files()[1:3]
    assert table.total_bytes == 16
    assert table.kind_numbers().tolist() == [0, 1, 0, 2, 3, 0]
    assert table.endings() == {"txt": (4, 4), "jsonl": (1, 5), "": (1, 7)}
    assert list(table.chosen([2, 0])) == [some_files()[2], some_files()[0]]
    assert table.stamp() == FileTable(some_files()).stamp() != table.chosen(range(5)).stamp()


def test_a_file_takes_few_bytes_of_memory() -> None:
    tracemalloc.start()
    table = FileTable()
    folder, kind = table.folder("/some/long/folder/"), table.kind("text", "", 0, "txt")
    for number in range(50_000):
        table.add(folder, f"{number:07d}.txt", kind, 500, 10**18, 10**18)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken / 50_000 < 80


contents = st.one_of(
    st.binary(max_size=40), st.text(max_size=40).map(str.encode), st.sampled_from(["", " "]).map(str.encode)
)


@settings(max_examples=150, deadline=None)
@given(contents)
@example(b"version https://git-lfs.github.com/spec/v1\n")
@example(b"%PDF-1.7 text")
@example(b'{"text": "a"}\n')
@example(b"ab  ftyp")
@example(b"x" * 256 + b"mustard on bread")
@example(b"{\\rtf1 text}")
@example(b"RIFF is a word")
@example(b"\xef\xbb\xbfmarked")
def test_a_simple_file_is_what_its_reader_says(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.txt"
        path.write_bytes(content)
        span = Span(InputFile(str(path), len(content), 1, "text"))
        simple = read_simple(span)
    reading = ReadSettings()
    try:
        records = list(read_text(io.BufferedReader(io.BytesIO(content)), span, reading))  # type: ignore[arg-type]
    except DataError:
        assert simple is None
        return
    if simple is not None:
        text, encoded = simple
        (record,) = records
        assert isinstance(record, Document) and record.text == text and encoded == content and record.final
        assert not reading.notes and not reading.skipped_bytes and not text.isspace()


def test_small_files_give_the_rows_that_their_readers_give(
    preparing: Preparing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "texts", 40)
    (folder / "1" / "blank.txt").write_text(" \n")
    (folder / "2" / "records.txt").write_text('{"text": "from a record"}\n')
    (folder / "3" / "marked.txt").write_bytes(b"\xef\xbb\xbfmarked")
    for cleaning in ((), ("min-length",)):
        result, artifacts = preparing(folder, into="many", cleaning=cleaning)
        with monkeypatch.context() as patch:
            patch.setattr(shard_encoder, "read_simple", lambda span: None)
            one_by_one, apart = preparing(folder, into="one", cleaning=cleaning)
        assert row_bytes(artifacts) == row_bytes(apart)
        assert (result.dropped, result.held_out) == (one_by_one.dropped, one_by_one.held_out)


def test_the_manifest_stays_small_and_the_list_has_every_file(preparing: Preparing, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "texts", 300)
    _, artifacts = preparing(folder)
    manifest = read_manifest(artifacts)
    assert len(manifest.inputs) == INPUTS_SHOWN and manifest.input_count == 300
    assert len(json.dumps(manifest.request)) < 4000
    with pa.memory_map(str(artifacts.input_list)) as source:
        listed = pa.ipc.open_file(source).read_all().to_pylist()
    assert [entry["path"] for entry in listed] == [file.path for file in find_files([str(folder)])]
    first = manifest.inputs[0]
    assert (listed[0]["path"], listed[0]["size"], listed[0]["hash"].hex()) == (first.path, first.size, first.hash)
    assert preparing(folder)[0].reused
    whole = artifacts.input_list.read_bytes()
    for damage in (whole[: len(whole) // 2], None):
        artifacts.input_list.unlink()
        if damage is not None:
            artifacts.input_list.write_bytes(damage)
        assert not preparing(folder)[0].reused, "what is damaged or missing is made again"
        assert artifacts.input_list.read_bytes() == whole
    assert preparing(folder)[0].reused


def test_files_that_are_as_they_were_are_not_read_again(
    preparing: Preparing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_list, "SETTLED_NS", 0)
    folder = write_files(tmp_path / "texts", 30)
    time.sleep(0.02)
    preparing(folder)
    read: list[str] = []
    own = fingerprint._hash
    monkeypatch.setattr(fingerprint, "_hash", lambda files, at: (read.append(files.path(at)), own(files, at))[1])
    assert preparing(folder)[0].reused and not read
    (folder / "3" / "0003.txt").write_text("3. something else")
    assert not preparing(folder)[0].reused
    assert read == [str(folder / "3" / "0003.txt")]


def test_other_bytes_of_the_same_size_and_time_are_noticed(
    preparing: Preparing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_list, "SETTLED_NS", 0)
    folder = write_files(tmp_path / "texts", 5)
    path = folder / "1" / "0001.txt"
    status = path.stat()
    time.sleep(0.02)
    preparing(folder)
    path.write_text(path.read_text().replace("Ishmael", "Ishmaal"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    result, _ = preparing(folder)
    assert not result.reused


def test_what_changed_among_many_files_is_named(preparing: Preparing, tmp_path: Path) -> None:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.model import Config
    from pretrain_cli.data.prepare import prepare

    folder = write_files(tmp_path / "texts", 150)
    _, artifacts = preparing(folder)
    (folder / "0" / "0000.txt").unlink()
    (folder / "1" / "0148.txt").write_text("other")
    (folder / "9.txt").write_text("new")
    notes: list[str] = []

    class Notes(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    data = {"inputs": [str(folder)], "sequence_length": 32, "add_bos": True}
    tokenizer = artifacts.root.parent / "other.json"
    tokenizer.write_bytes((artifacts.tokenizer / "tokenizer.json").read_bytes())
    prepare(
        Config.model_validate({"data": data, "tokenizer": {"path": str(tokenizer)}}), Artifacts(artifacts.root), Notes()
    )
    told = next(note for note in notes if note.startswith("Preparing again"))
    assert f"{folder}/1/0148.txt has changed" in told
    assert f"{folder}/9.txt is new" in told and f"{folder}/0/0000.txt is gone" in told
