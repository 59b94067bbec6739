"""Parquet and Arrow hold strings in several ways; each is read, or refused by its type's name."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pretrain_cli.data.reading import columnar, input_files
from pretrain_cli.errors import DataError
from tests.support.reading import read_path

DOCS = [f"Document {number} tells of the sea and of ships." for number in range(60)]
BYTES = [text.encode() for text in DOCS]
ARRAYS = {
    "string": pa.array(DOCS),
    "large": pa.array(DOCS, pa.large_string()),
    "view": pa.array(DOCS, pa.string_view()),
    "dictionary": pa.array(DOCS).dictionary_encode(),
    "dictionary of large": pa.array(DOCS, pa.large_string()).dictionary_encode(),
    "binary": pa.array(BYTES, pa.binary()),
    "large binary": pa.array(BYTES, pa.large_binary()),
    "binary view": pa.array(BYTES, pa.binary_view()),
}


def write(path: Path, columns: dict[str, pa.Array]) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("column", ["auto", "story"])
def test_every_type_of_string_is_read(tmp_path: Path, kind: str, format: str, column: str) -> None:
    path = write(tmp_path / f"a.{format}", {"id": pa.array(range(60)), "story": ARRAYS[kind]})
    assert read_path(path, column=column).texts == DOCS


def test_bytes_that_are_no_text_are_bad_records(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.array([*BYTES[:9], b"\xff\xfe\xfa"], pa.binary())})
    found = read_path(path)
    assert found.texts == DOCS[:9] and [bad.reason for bad in found.rejected] == ["not_utf8"]


def test_a_column_of_another_type_is_refused_by_its_name(tmp_path: Path) -> None:
    columns = {"tokens": pa.array([[1, 2]] * 60), "n": pa.array(range(60))}
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError, match=r"no column of text. It has: tokens \(list<.*int64>\), n \(int64\)"):
        read_path(path)
    with pytest.raises(DataError, match=r"'n' holds int64, not text"):
        read_path(path, column="n")
    with pytest.raises(DataError, match=r"no column 'm'; it has: tokens, n"):
        read_path(path, column="m")


def test_nulls_and_ids_before_the_text_are_not_taken_for_it(tmp_path: Path) -> None:
    ids = pa.array([f"rec-{number}" for number in range(60)])
    found = read_path(write(tmp_path / "a.parquet", {"id": ids, "story": pa.array([None, *DOCS[1:]])}))
    assert found.texts == DOCS[1:] and found.columns == {"story": [60, 59, 1]}


def test_a_text_inside_a_struct_is_found(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", {"id": pa.array(range(60)), "page": pa.array([{"text": text} for text in DOCS])}
    )
    found = read_path(path)
    assert found.texts == DOCS and list(found.columns) == ["page.text"]


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_a_small_table_that_says_the_same_again_and_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(input_files, "LEAST_BOMB_BYTES", 1 << 22)
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 100_000, pa.int8()), pa.array(["word " * 200, "short"]))
    table, file = pa.table({"text": texts}), tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_file(file, table.schema) as sink:
            sink.write_table(table)
    with pytest.raises(DataError, match="it may be a bomb"):
        read_path(file)
    monkeypatch.setattr(input_files, "MOST_TIMES", 10_000)
    assert read_path(file).texts == ["word " * 200, "short"] * 100_000


def test_a_table_of_a_billion_rows_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "LEAST_BOMB_BYTES", 1 << 22)
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema({"text": pa.null()})) as sink:
        sink.write_batch(pa.record_batch({"text": pa.nulls(10**9)}))
    with pytest.raises(DataError, match="it may be a bomb"):
        read_path(tmp_path / "a.arrow")


def test_rows_are_counted_before_they_are_walked(tmp_path: Path) -> None:
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema({"text": pa.null()})) as sink:
        sink.write_batch(pa.record_batch({"text": pa.nulls(2 * 10**9)}))
    started = time.monotonic()
    with pytest.raises(DataError, match="it may be a bomb"):
        read_path(tmp_path / "a.arrow")
    assert time.monotonic() - started < 10  # walked up to 1 GB: minutes


LONG = "word " * 1_000_000


def often(name: str) -> pa.Array:
    """The long text in each of many rows; those that have to be whole in memory here have fewer."""
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 600), [LONG])
    if name == "view.arrow":
        _, view, text = pa.array([LONG], pa.string_view()).buffers()
        return pa.Array.from_buffers(pa.string_view(), 600, [None, pa.py_buffer(view.to_pybytes()[:16] * 600), text])
    if name == "struct.parquet":
        return pa.array([{"text": LONG}] * 100)
    return pa.array([LONG] * 100) if name == "delta.parquet" else repeated


@pytest.mark.parametrize(
    "name", ["dictionary.parquet", "delta.parquet", "struct.parquet", "dictionary.arrow", "view.arrow"]
)
def test_a_long_text_that_a_small_table_says_often_takes_little_memory(tmp_path: Path, name: str) -> None:
    table, path = pa.table({"text": often(name)}), tmp_path / name
    if path.suffix == ".parquet":
        delta = {"text": "DELTA_BYTE_ARRAY"} if "delta" in name else None
        options: dict[str, Any] = {"use_dictionary": not delta, "column_encoding": delta, "store_schema": False}
        pq.write_table(table, path, compression="zstd", **options)
    else:
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as sink:
            sink.write_table(table)
    del table
    code = (
        "import resource, sys, pyarrow.parquet, pyarrow.compute\n"
        "from pretrain_cli.data.reading import input_files, inputs, read, settings\n"
        "from pretrain_cli.errors import DataError\n"
        "input_files.LEAST_BOMB_BYTES = 1 << 28\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try:\n"
        "    [file] = inputs.find_files(sys.argv[1:])\n"
        "    for record in read.read(input_files.Span(file), settings.ReadSettings()): pass\n"
        "except DataError as error: print(error.message)\n"
    )
    line = [sys.executable, "-c", code, str(path)]
    assert "it may be a bomb" in subprocess.run(line, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("column", ["page.nope", "page.text.deeper"])
def test_a_column_that_a_struct_lacks_is_a_bad_record(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.parquet", {"page": pa.array([{"text": text} for text in DOCS])})
    assert {bad.reason for bad in read_path(path, column=column).rejected} == {"no_text_column"}


def test_parts_of_a_batch_are_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "PIECE_BYTES", 100)
    monkeypatch.setattr(columnar, "BATCH_BYTES", 1_000)
    for name, array in ARRAYS.items():
        for ending in ("parquet", "arrow"):
            path = write(tmp_path / f"{name}.{ending}", {"text": pa.chunked_array([array] * 50)})
            assert read_path(path).texts == DOCS * 50, path
    pq.write_table(pa.table({"id": range(60), "text": DOCS}), tmp_path / "a.parquet", row_group_size=7)
    found = read_path(tmp_path / "a.parquet")
    assert found.texts == DOCS
