"""Reads csv and tsv tables."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from typing import cast

from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected
from pretrain_cli.data.reading.input_files import Span, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_blocks import decode_stream
from pretrain_cli.data.reading.text_column import choose_column, missing_column, text_of

ROWS_AT_ONCE = 1024


def read_delimited(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A table with a header line; quoted fields may hold line ends."""
    path, delimiter = span.file.path, "\t" if span.file.format == "tsv" else ","
    csv.field_size_limit(1 << 30)
    with open_bytes(span.file) as stream:
        decoded = decode_stream(stream, settings.encoding, path)
        if decoded is None:
            yield Rejected(path, 0, 0, 0, "empty")
            return
        rows = csv.reader(_lines(decoded[1]), delimiter=delimiter)
        header = next(rows, [])
        column = settings.column
        if column == "auto":
            column = choose_column(dict.fromkeys(header, ""), path)
        if column not in header:
            raise missing_column(path, column, header)
        place = header.index(column)
        filled = ((row, rows.line_num) for row in rows if row)
        while block := list(itertools.islice(filled, ROWS_AT_ONCE)):
            texts = [row[place] if place < len(row) else None for row, _ in block]
            if all(texts):
                yield DocumentBatch(cast("list[str]", texts), [cast(str, text).encode() for text in texts], path)
                continue
            for (row, line), text in zip(block, texts, strict=True):
                yield text_of(text, column, path, line, 0, sum(map(len, row)))


def _lines(blocks: Iterator[str]) -> Iterator[str]:
    held = ""
    for block in blocks:
        lines = io.StringIO(held + block, newline="").readlines()
        held = lines.pop() if lines else ""
        yield from lines
    if held:
        yield held
