"""Reads Parquet and Arrow tables, batch by batch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any

from pretrain_cli.data.reading.documents import DocumentBatch, Record
from pretrain_cli.data.reading.input_files import Span, can_seek, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import COLUMN_NAMES, choose_column, missing_column, text_of

ROWS_AT_ONCE = 1024


def read_columnar(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The texts of one column."""
    import pyarrow as pa

    path, number = span.file.path, 0
    with open_bytes(span.file) as stream:
        seekable = stream if can_seek(span.file) else io.BytesIO(stream.read())
        batches, schema = _open_table(seekable, span.file.format, settings)
        names = [
            entry.name for entry in schema if pa.types.is_string(entry.type) or pa.types.is_large_string(entry.type)
        ]
        column = settings.column if settings.column != "auto" else choose_column(dict.fromkeys(names, ""), path)
        if column not in schema.names:
            raise missing_column(path, column, schema.names)
        for batch in batches:
            if span.file.format == "arrow":  # Parquet's reader checks what it decodes; this one maps what is there
                batch.validate(full=True)
            texts = batch.column(batch.schema.get_field_index(column)).to_pylist()
            usual = texts and all(texts) and set(map(type, texts)) == {str}
            encoded = list(map(str.encode, texts)) if usual else []
            if encoded and max(map(len, encoded)) <= settings.max_record_bytes:
                yield DocumentBatch(texts, encoded, path)
            else:
                for place, text in enumerate(texts, number + 1):
                    size = len(text.encode(errors="replace")) if isinstance(text, str) else 0
                    long = size > settings.max_record_bytes
                    yield settings.too_long(path, place, 0, size) if long else text_of(text, column, path, place, 0, 0)
            number += len(texts)


def _open_table(stream: IO[bytes], format: str, settings: ReadSettings) -> tuple[Iterator[Any], Any]:
    """(record batches, schema), pyarrow's own; of Parquet the text column alone, where it is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if format == "parquet":
        table = pq.ParquetFile(stream)
        names = table.schema_arrow.names
        column = settings.column if settings.column != "auto" else next((n for n in COLUMN_NAMES if n in names), "")
        columns = [column] if column in names else None
        return table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns), table.schema_arrow
    try:
        file = pa.ipc.open_file(stream)
        return (file.get_batch(index) for index in range(file.num_record_batches)), file.schema
    except pa.ArrowInvalid:
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
        return iter(reader), reader.schema
