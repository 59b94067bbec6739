"""Reads Parquet and Arrow tables, batch by batch."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import IO, Any

from pretrain_cli.data.reading.binary import check_pointer
from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected
from pretrain_cli.data.reading.input_files import Span, can_seek, check_bomb, read_at_most
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import (
    COLUMN_HINT,
    SAMPLED_RECORDS,
    choose_column,
    missing_column,
    text_of,
    told_columns,
    value_at,
)
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import byte_size
from pretrain_cli.memory import available_bytes

ROWS_AT_ONCE = 1024
ROW_BYTES = 16
"""That a row counts for, beside its text, in what a table holds: a billion rows of nothing take a few bytes."""


def read_columnar(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The texts of one column."""
    path, number = span.file.name, 0
    seekable = stream if can_seek(span.file) and stream.seekable() else _in_memory(stream, path)
    check_pointer(seekable.read(64), path)
    seekable.seek(0)
    column, batches = _open_table(seekable, span.file.format, path, settings)
    held = 0
    for texts in (_texts(piece, column) for batch in batches for piece in _pieces(batch)):
        held += ROW_BYTES * len(texts) + sum(len(text) for text in texts if isinstance(text, str))
        check_bomb(span.file, held)
        usual = texts and all(texts) and set(map(type, texts)) == {str}
        encoded = list(map(str.encode, texts)) if usual else []
        if encoded and max(map(len, encoded)) <= settings.max_record_bytes:
            yield DocumentBatch(texts, encoded, path)
        else:
            for place, text in enumerate(texts, number + 1):
                yield _record(text, column, path, place, settings)
        number += len(texts)


def _in_memory(stream: IO[bytes], path: str) -> IO[bytes]:
    """All of a stream that can't be read from the middle, as a table has to be: half of the memory is the most."""
    most = available_bytes() // 2
    content = read_at_most(stream, most)
    if content is None:
        raise DataError(
            f"{path} can't be read from the middle, and holds over {byte_size(most)}, half of the free memory.",
            "Copy it to this machine and unpack it first.",
        )
    return io.BytesIO(content)


def _record(text: object, column: str, path: str, place: int, settings: ReadSettings) -> Record:
    if isinstance(text, bytes):
        return Rejected(path, place, 0, len(text), "not_utf8", "the column holds bytes that aren't UTF-8")
    size = len(text.encode(errors="replace")) if isinstance(text, str) else 0
    if size > settings.max_record_bytes:
        return settings.too_long(path, place, 0, size)
    return text_of(text, column, path, place, 0, 0)


def _open_table(stream: IO[bytes], format: str, path: str, settings: ReadSettings) -> tuple[str, Iterator[Any]]:
    """(text column, record batches, pyarrow's own); of Parquet that column alone."""
    import pyarrow.parquet as pq

    if format == "parquet":
        table = pq.ParquetFile(stream)
        schema = table.schema_arrow
        able = _check(schema, path, settings.column)
        if settings.column != "auto":
            column = settings.column
        else:
            sample = next(table.iter_batches(batch_size=SAMPLED_RECORDS, columns=able), None)
            column = _choose([] if sample is None else [sample], schema, path, settings)
        top = column if column in schema.names else column.partition(".")[0]
        return column, table.iter_batches(batch_size=ROWS_AT_ONCE, columns=[top])
    batches, schema = _open_arrow(stream)
    _check(schema, path, settings.column)
    if settings.column != "auto":
        return settings.column, batches
    first = list(itertools.islice(batches, 1))
    return _choose(first, schema, path, settings), itertools.chain(first, batches)


def _open_arrow(stream: IO[bytes]) -> tuple[Iterator[Any], Any]:
    """(record batches, schema) of a file in either of Arrow's formats."""
    import pyarrow as pa

    try:
        file = pa.ipc.open_file(stream)
        found: Iterator[Any] = (file.get_batch(index) for index in range(file.num_record_batches))
        schema = file.schema
    except pa.ArrowInvalid:
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
        found, schema = iter(reader), reader.schema
    # Parquet's reader checks what it decodes; this one maps what is there.
    return (batch for batch in found if batch.validate(full=True) is None), schema


def _check(schema: Any, path: str, column: str) -> list[str]:
    """The columns that may hold text, also inside a struct.

    Raises:
        DataError: the column that was asked for, or every column, is of another type.
    """
    able = [entry.name for entry in schema if _may_hold_text(entry.type)]
    types = told_columns([f"{entry.name} ({entry.type})" for entry in schema])
    if column != "auto":
        top = column if column in schema.names else column.partition(".")[0]
        if top not in schema.names:
            raise missing_column(path, column, schema.names)
        if top not in able:
            raise DataError(f"{path}: the column '{column}' holds {schema.field(top).type}, not text.", COLUMN_HINT)
    elif not able:
        raise DataError(f"{path} has no column of text. It has: {types}.", "Give a table with a text column.")
    return able


def _may_hold_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _may_hold_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_may_hold_text(kind.field(place).type) for place in range(kind.num_fields))
    able = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in able)


def _choose(sample: Sequence[Any], schema: Any, path: str, settings: ReadSettings) -> str:
    rows = [row for batch in sample for row in batch.slice(0, SAMPLED_RECORDS).to_pylist()]
    if not rows:
        named: list[str] = [entry.name for entry in schema if _may_hold_text(entry.type)]
        return next((name for name in named if name == "text"), named[0])
    return settings.take_column(choose_column([_decoded(row) for row in rows], path))


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _decode(value) for name, value in row.items()}


def _decode(value: object) -> object:
    """The text of bytes; bytes that aren't UTF-8 stay."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _pieces(batch: Any) -> Iterator[Any]:
    """A batch of an Arrow file may be all of it."""
    return (batch.slice(start, ROWS_AT_ONCE) for start in range(0, batch.num_rows, ROWS_AT_ONCE))


def _texts(batch: Any, column: str) -> list[Any]:
    """The column's values as strings, where they are that."""
    place = batch.schema.get_field_index(column)
    if place >= 0:
        values = _values(batch.column(place))
    else:
        top = column.partition(".")[0]
        values = [value_at({top: value}, column) for value in batch.column(top).to_pylist()]
    return list(map(_decode, values)) if any(isinstance(value, bytes) for value in values) else values


def _values(array: Any) -> list[Any]:
    """An array's values; of one with a dictionary, each entry once, however often it is meant."""
    import pyarrow as pa

    if not pa.types.is_dictionary(array.type):
        found: list[Any] = array.to_pylist()
        return found
    used = array.indices.unique().drop_null()
    entries = dict(zip(used.to_pylist(), array.dictionary.take(used).to_pylist(), strict=True))
    return [entries.get(index) for index in array.indices.to_pylist()]
