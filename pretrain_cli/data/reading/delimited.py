"""Reads csv and tsv tables."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from typing import Any, cast

from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected
from pretrain_cli.data.reading.input_files import Span, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_blocks import decode_stream
from pretrain_cli.data.reading.text_column import choose_column, missing_column, text_of
from pretrain_cli.errors import DataError

ROWS_AT_ONCE = 1024


def read_delimited(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A table with a header line; quoted fields may hold line ends."""
    path, delimiter = span.file.path, "\t" if span.file.format == "tsv" else ","
    csv.field_size_limit(settings.max_record_bytes)
    with open_bytes(span.file) as stream:
        decoded = decode_stream(stream, settings.encoding, path)
        if decoded is None:
            yield Rejected(path, 0, 0, 0, "empty")
            return
        rows = csv.reader(_lines(decoded[1], path, settings), delimiter=delimiter)
        header = next(rows, [])
        column = settings.column
        if column == "auto":
            column = choose_column(dict.fromkeys(header, ""), path)
        if column not in header:
            raise missing_column(path, column, header)
        place = header.index(column)
        filled = ((row, rows.line_num) for row in rows if row)
        while block := _next_rows(filled, path, rows, settings):
            texts = [row[place] if place < len(row) else None for row, _ in block]
            if all(texts):
                yield DocumentBatch(cast("list[str]", texts), [cast(str, text).encode() for text in texts], path)
                continue
            for (row, line), text in zip(block, texts, strict=True):
                yield text_of(text, column, path, line, 0, sum(map(len, row)))


def _lines(blocks: Iterator[str], path: str, settings: ReadSettings) -> Iterator[str]:
    held: list[str] = []
    size = number = 0
    for block in blocks:
        if held and held[-1].endswith(("\n", "\r")) and not (held[-1].endswith("\r") and block.startswith("\n")):
            yield "".join(held)
            held, size, number = [], 0, number + 1
        lines = io.StringIO(block, newline="").readlines()
        if held and (len(lines) > 1 or lines[0].endswith("\n")):
            lines[0] = "".join([*held, lines[0]])
            held, size = [], 0
        last = lines.pop()
        yield from lines
        number += len(lines)
        held.append(last)
        size += len(last)
        if size > settings.max_record_bytes:
            raise _too_long(path, number + 1, settings)
    yield from filter(None, ["".join(held)])


def _next_rows(
    filled: Iterator[tuple[list[str], int]], path: str, rows: Any, settings: ReadSettings
) -> list[tuple[list[str], int]]:
    try:
        return list(itertools.islice(filled, ROWS_AT_ONCE))
    except csv.Error as error:
        if "field limit" in str(error):  # a quote that is never closed makes one field of all that follows
            raise _too_long(path, rows.line_num, settings) from error
        raise


def _too_long(path: str, line: int, settings: ReadSettings) -> DataError:
    return DataError(
        f"{path}, line {line:,}: too long: {settings.limit}.",
        "Fix it, or raise the limit with --set data.max_record_bytes=BYTES.",
    )
