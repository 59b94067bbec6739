"""Reads Parquet and Arrow tables, batch by batch."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
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
PIECE_BYTES = 1 << 26
"""Of text that is taken out of a batch at once, if it has more than one row."""
BATCH_BYTES = 1 << 28
"""That a batch of Parquet may take at most, if it has more than one row, however often it says the same."""
PAGE_HEADER_BYTES = 64
DICTIONARY_PAGE = re.compile(rb"\x15\x04\x15([\x80-\xff]{0,4}[\x00-\x7f])")
"""How a page's header begins, in Thrift's compact protocol, with the size that a dictionary unpacks to."""


def read_columnar(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The texts of one column."""
    path, number = span.file.name, 0
    seekable = stream if can_seek(span.file) and stream.seekable() else _in_memory(stream, path)
    check_pointer(seekable.read(64), path)
    seekable.seek(0)
    column, batches = _open_table(seekable, span.file.format, path, settings)
    for texts in (_texts(piece, column) for piece in _pieces(batches, column, span)):
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
            sample = _parquet_batches(table, stream, able, SAMPLED_RECORDS)
            column = _choose(sample, schema, path, settings)
        top = column if column in schema.names else column.partition(".")[0]
        return column, _parquet_batches(table, stream, [top], ROWS_AT_ONCE)
    batches, schema = _open_arrow(stream)
    _check(schema, path, settings.column)
    if settings.column != "auto":
        return settings.column, batches
    first = list(itertools.islice(batches, 1))
    return _choose(first, schema, path, settings), itertools.chain(first, batches)


def _parquet_batches(table: Any, stream: IO[bytes], columns: list[str], most_rows: int) -> Iterator[Any]:
    """Batches of so many rows, or of fewer that take no more than ``BATCH_BYTES``."""
    for number in range(table.num_row_groups):
        group = table.metadata.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        within = tuple(f"{column}." for column in columns)
        chunks = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(within)]
        longest = sum(_longest_repeated(stream, chunk) for chunk in chunks)
        rows = max(1, min(most_rows, BATCH_BYTES // max(1, longest)))
        yield from table.iter_batches(batch_size=rows, row_groups=[number], columns=columns)


def _longest_repeated(stream: IO[bytes], chunk: Any) -> int:
    """Bytes of which no value that a column's chunk holds once, and says any number of times, has more."""
    if "DELTA_BYTE_ARRAY" in chunk.encodings:
        return int(chunk.total_uncompressed_size)
    stream.seek(min(filter(None, [chunk.dictionary_page_offset, chunk.data_page_offset]), default=0))
    header = DICTIONARY_PAGE.match(stream.read(PAGE_HEADER_BYTES))
    if header is None:
        return 0
    coded: int = sum((byte & 127) << 7 * place for place, byte in enumerate(header[1]))
    return coded >> 1


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


def _choose(batches: Iterable[Any], schema: Any, path: str, settings: ReadSettings) -> str:
    rows = _sample(batches)
    if not rows:
        named: list[str] = [entry.name for entry in schema if _may_hold_text(entry.type)]
        return next((name for name in named if name == "text"), named[0])
    return settings.take_column(choose_column([_decoded(row) for row in rows], path))


def _sample(batches: Iterable[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        for place in range(batch.num_rows):
            rows += batch.slice(place, 1).to_pylist()
            size += _weight(rows[-1])
            if len(rows) == SAMPLED_RECORDS or size > BATCH_BYTES:
                return rows
    return rows


def _weight(value: object) -> int:
    """The strings in a value, at any depth, by their length."""
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_weight, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


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


def _pieces(batches: Iterator[Any], column: str, span: Span) -> Iterator[Any]:
    """Some rows at a time, of some MB: a batch of an Arrow file may be all of it, and say the same again and again.

    Raises:
        DataError: the file is far too small for what it holds.
    """
    import pyarrow.compute as pc

    held = 0
    for batch in batches:
        check_bomb(span.file, held + ROW_BYTES * batch.num_rows)
        lengths_of = _measure(batch, column)
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            piece, lengths = batch.slice(start, ROWS_AT_ONCE), lengths_of(start)
            size = pc.sum(lengths).as_py() or 0
            held += ROW_BYTES * piece.num_rows + size
            check_bomb(span.file, held)
            yield from [piece] if size <= PIECE_BYTES else _cut(piece, lengths.to_pylist())


def _cut(batch: Any, lengths: list[int | None]) -> Iterator[Any]:
    """The rows of a batch in pieces of ``PIECE_BYTES`` or one row."""
    start = size = 0
    for place, length in enumerate(lengths):
        if place > start and size + (length or 0) > PIECE_BYTES:
            yield batch.slice(start, place - start)
            start, size = place, 0
        size += length or 0
    yield batch.slice(start)


def _measure(batch: Any, column: str) -> Callable[[int], Any]:
    """What gives the bytes of the texts in ``ROWS_AT_ONCE`` rows from a row on, without making them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if batch.schema.get_field_index(column) >= 0:
        texts = batch.column(column)
    else:
        top, *inside = column.split(".")
        try:
            texts = pc.struct_field(batch.column(top), inside)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # there is no such thing inside
            texts = pa.nulls(batch.num_rows)
    if not pa.types.is_dictionary(texts.type):
        return lambda start: _lengths(texts.slice(start, ROWS_AT_ONCE))
    entries = _lengths(texts.dictionary)
    return lambda start: entries.take(texts.indices.slice(start, ROWS_AT_ONCE))


def _lengths(array: Any) -> Any:
    """The bytes of each of an array's values."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):  # each: length, then 12 bytes
        views = np.frombuffer(array.buffers()[1], np.int32)[4 * array.offset :: 4][: len(array)]
        return pa.array(views, mask=array.is_null().to_numpy(zero_copy_only=False))
    if any(
        getattr(pa.types, f"is_{name}")(array.type) for name in ("string", "large_string", "binary", "large_binary")
    ):
        return pc.binary_length(array)
    return pa.nulls(len(array), pa.int64())


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
