"""Each format gives the same documents, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pretrain_cli.data.documents import Batch, Document
from pretrain_cli.data.inputs import find_files
from pretrain_cli.data.readers import ReadSettings, Span, read
from pretrain_cli.errors import DataError

TEXTS = ["The first document.", 'The second, "quoted"\nand on two lines.', "Die dritte: äöü 数据"]


def documents(path: Path | str, **settings: str) -> list[str]:
    """The texts of all documents, parts of a long one joined."""
    found, parts = [], ""
    for file in find_files([str(path)]):
        for record in read(Span(file), ReadSettings(**settings)):
            if isinstance(record, Batch):
                found += record.texts
                continue
            assert isinstance(record, Document)
            parts += record.text
            if record.final:
                found.append(parts)
                parts = ""
    assert not parts
    return found


def jsonl(key: str = "text") -> bytes:
    return "".join(json.dumps({"id": i, key: text}) + "\n" for i, text in enumerate(TEXTS)).encode()


def table(kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink, rows = io.BytesIO(), pa.table({"id": list(range(3)), "text": TEXTS})
    if kind == "parquet":
        pq.write_table(rows, sink)
    else:
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    return sink.getvalue()


def csv_bytes(delimiter: str) -> bytes:
    import csv

    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerows([["id", "text"], *([str(i), text] for i, text in enumerate(TEXTS))])
    return sink.getvalue().encode()


FORMATS: dict[str, Callable[[], bytes]] = {
    "jsonl": jsonl,
    "json": lambda: json.dumps([{"text": text} for text in TEXTS]).encode(),
    "csv": lambda: csv_bytes(","),
    "tsv": lambda: csv_bytes("\t"),
    "parquet": lambda: table("parquet"),
    "arrow": lambda: table("arrow"),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_format_in_every_compression(tmp_path: Path, kind: str, compression: str) -> None:
    path = tmp_path / f"data.{kind}{compression}"
    path.write_bytes(COMPRESSIONS[compression](FORMATS[kind]()))
    assert documents(path) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    text = "“Smart quotes” — and a café, in many ordinary English words besides.\n" * 20
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert documents(tmp_path / "a.txt") == [text]


def test_a_separator_parts_documents_wherever_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain_cli.data import readers

    (tmp_path / "a.txt").write_text("<end>".join(TEXTS * 20), encoding="utf-8")
    for size in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(readers, "BLOCK", size)
        assert documents(tmp_path / "a.txt", separator="<end>", encoding="utf-8") == TEXTS * 20


def test_folders_and_globs_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden.txt", "sub/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert documents(tmp_path) == ["a.txt", "b.txt", "sub/c.md"]
    assert documents(tmp_path / "*.txt") == ["a.txt", "b.txt"]


def test_an_fsspec_address_is_read_like_a_file() -> None:
    import fsspec

    with fsspec.open("memory://folder/data.jsonl", "wb") as file:
        file.write(jsonl("content"))
    assert documents("memory://folder/data.jsonl") == TEXTS
    assert documents("memory://folder") == TEXTS


def test_an_unknown_column_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"one": "x", "two": "y"}\n')
    with pytest.raises(DataError, match="one, two"):
        documents(tmp_path / "a.jsonl")
    assert documents(tmp_path / "a.jsonl", column="two") == ["y"]


def test_web_pages_and_word_files_give_their_text(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    pytest.importorskip("trafilatura")
    (tmp_path / "a.html").write_text(
        "<html><script>var x=1</script><article><h1>Title</h1><p>Body text of the page.</p></article></html>"
    )
    (text,) = documents(tmp_path / "a.html")
    assert "Body text of the page." in text and "var x" not in text
    document = docx.Document()
    document.add_paragraph("A paragraph.")
    document.save(str(tmp_path / "b.docx"))
    assert documents(tmp_path / "b.docx") == ["A paragraph."]
    with zipfile.ZipFile(tmp_path / "c.docx", "w") as archive:
        archive.writestr("nothing", "")
    with pytest.raises(DataError, match="can't be read"):
        documents(tmp_path / "c.docx")
