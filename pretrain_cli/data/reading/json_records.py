"""Reads JSON: one record a line (jsonl), or one array of records."""

from __future__ import annotations

import codecs
import itertools
import json
import operator
import sys
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any, cast

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected, make_batch
from pretrain_cli.data.reading.input_files import Span, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import choose_column, text_of
from pretrain_cli.errors import first_line

LINES_AT_ONCE = 1024


def read_jsonl(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """One JSON object, or one JSON string, a line."""
    path, offset, number, column = span.file.path, span.start, 0, settings.column
    with open_bytes(span.file) as stream:
        if span.start:
            stream.seek(span.start)
        # A span ends where a line does, so the last block ends with it.
        limit = sys.maxsize if span.end < 0 else span.end - span.start
        for lines in _line_blocks(stream, limit, bool(span.file.compression)):
            found = _all_at_once(lines, column, path)
            if found:
                column, batch = found
                yield batch
            else:
                column = yield from _one_by_one(lines, column, path, number, offset)
            number += len(lines)
            offset += sum(map(len, lines))


def _line_blocks(stream: IO[bytes], limit: int, compressed: bool) -> Iterator[list[bytes]]:
    """Lines of ``limit`` bytes in all, about a block at a time.

    Of a compressed file that is cut short, the lines before the cut come before the error: ``readlines`` loses them.
    """
    while limit > 0:
        lines: list[bytes] = []
        try:
            if compressed:
                lines += itertools.islice(stream, LINES_AT_ONCE)
            else:
                lines = stream.readlines(min(input_files.BLOCK_BYTES, limit))
        except (EOFError, OSError, ValueError):
            if lines:
                yield lines
            raise
        if not lines:
            return
        yield lines
        limit -= sum(map(len, lines))


_scan_json: Callable[[str, int], tuple[Any, int]] = cast(Any, json.JSONDecoder()).scan_once


def _all_at_once(lines: list[bytes], column: str, path: str) -> tuple[str, DocumentBatch] | None:
    """(column, all texts) of lines without anything unusual, else None: no Python for each line but this."""
    try:
        decoded = list(map(bytes.decode, lines))
        # The scanner of json.loads. Where it meets no JSON at all it raises StopIteration, which ends the list early.
        scanned = list(map(_scan_json, decoded, itertools.repeat(0)))
        if len(scanned) < len(lines):
            return None
        values, ends = map(list, zip(*scanned, strict=True))
        if ends != list(map(len, map(str.rstrip, decoded, itertools.repeat(" \t\r\n")))):
            return None
        if column == "auto":
            if not isinstance(values[0], dict):
                return None
            column = choose_column(values[0], path)
        texts = list(map(operator.itemgetter(column), values))
        if set(map(type, texts)) != {str} or not all(texts):
            return None
        batch = make_batch(texts, path)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (column, batch) if batch else None


def _one_by_one(lines: list[bytes], column: str, path: str, number: int, offset: int) -> Generator[Record, None, str]:
    """Each line's record; ``number`` and ``offset``: lines and bytes before them. Returns the column."""
    for raw in lines:
        number, here, offset = number + 1, offset, offset + len(raw)
        line = raw[3:] if here == 0 and raw.startswith(codecs.BOM_UTF8) else raw
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())  # given bytes, json would guess the encoding of each line
        except (ValueError, RecursionError) as error:
            yield Rejected(path, number, here, len(raw), "not_json", first_line(error))
            continue
        if column == "auto" and isinstance(value, dict):
            column = choose_column(value, path)
        yield text_of(value, column, path, number, here, len(raw))
    return column


def read_json(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A JSON array of records, one record, or one record a line."""
    path = span.file.path
    with open_bytes(span.file) as stream:
        raw = stream.read()
    try:
        value = json.loads(raw.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        if b"\n{" in raw.strip():
            yield from read_jsonl(span, settings)
            return
        yield Rejected(path, 1, int(getattr(error, "pos", 0)), len(raw), "not_json", first_line(error))
        return
    if isinstance(value, dict):
        lists = [entry for entry in value.values() if isinstance(entry, list) and entry and isinstance(entry[0], dict)]
        value = lists[0] if len(lists) == 1 and not any(isinstance(entry, str) for entry in value.values()) else [value]
    values = value if isinstance(value, list) else [value]
    column = settings.column
    for number, entry in enumerate(values, 1):
        if column == "auto" and isinstance(entry, dict):
            column = choose_column(entry, path)
        yield text_of(entry, column, path, number, 0, 0)
