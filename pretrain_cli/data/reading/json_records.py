"""Reads JSON: one record a line (jsonl), or one array of records."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import operator
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected, make_batch
from pretrain_cli.data.reading.input_files import Span, open_bytes, read_at_most
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import choose_column, text_of
from pretrain_cli.errors import first_line


def read_jsonl(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """One JSON object, or one JSON string, a line."""
    path, offset, number, column = span.file.path, span.start, 0, settings.column
    with open_bytes(span.file) as stream:
        if span.start:
            stream.seek(span.start)
        # A span ends where a line does, so the last block ends with it.
        left = sys.maxsize if span.end < 0 else span.end - span.start
        for lines in _line_blocks(stream, left, bool(span.file.compression), settings.max_record_bytes):
            if isinstance(lines, _LongLine):
                if lines.begins:
                    number += 1
                    yield settings.too_long(path, number, offset, lines.size)
                else:
                    settings.skip("too_long", lines.size)
                offset += lines.size
                continue
            found = _all_at_once(lines, column, path) if max(map(len, lines)) <= settings.max_record_bytes else None
            if found:
                column, batch = found
                yield batch
            else:
                column = yield from _one_by_one(lines, column, path, number, offset, settings)
            number += len(lines)
            offset += sum(map(len, lines))


@dataclass(frozen=True)
class _LongLine:
    """Bytes of a line that is too long: its beginning, or what follows of it."""

    size: int
    begins: bool


def _line_blocks(stream: IO[bytes], left: int, compressed: bool, limit: int) -> Iterator[list[bytes] | _LongLine]:
    """The lines in ``left`` bytes, about a block at a time; of a line of more than ``limit`` bytes only its size.

    Of a compressed file that is cut short, the lines before the cut come before the error: ``read`` would lose them.
    """
    if (
        not compressed and left <= limit
    ):  # no line can be too long: the least memory, since no block is held beside them
        while left > 0 and (lines := stream.readlines(min(input_files.BLOCK_BYTES, left))):
            yield lines
            left -= sum(map(len, lines))
        return
    read = cast("Callable[[int], bytes]", cast(Any, stream).read1 if compressed else stream.read)
    held: list[bytes] = []
    size, skipping = 0, False
    while left > 0 and (block := read(min(input_files.BLOCK_BYTES, left))):
        left -= len(block)
        end = block.rfind(b"\n") + 1
        if skipping:
            first = block.find(b"\n") + 1
            yield _LongLine(first or len(block), begins=False)
            if not first:
                continue
            block, end, skipping = block[first:], end - first, False
        if end:
            lines = io.BytesIO(b"".join([*held, block[:end]])).readlines()
            held, size = [], 0
            yield lines
        if end < len(block):
            held.append(block[end:])
            size += len(block) - end
        if size > limit:
            yield _LongLine(size, begins=True)
            held, size, skipping = [], 0, True
    if held:
        yield [b"".join(held)]


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


def _one_by_one(
    lines: list[bytes], column: str, path: str, number: int, offset: int, settings: ReadSettings
) -> Generator[Record, None, str]:
    """Each line's record; ``number`` and ``offset``: lines and bytes before them. Returns the column."""
    for raw in lines:
        number, here, offset = number + 1, offset, offset + len(raw)
        line = raw[3:] if here == 0 and raw.startswith(codecs.BOM_UTF8) else raw
        if len(raw) > settings.max_record_bytes:
            yield settings.too_long(path, number, here, len(raw))
            continue
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
        raw = read_at_most(stream, settings.max_record_bytes)
    if raw is None:
        yield from _long_json(span, settings)
        return
    try:
        value = json.loads(raw.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
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


def _long_json(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The records of a file that is too long to be parsed at once: one a line, or none."""
    with open_bytes(span.file) as stream:
        head = stream.read(input_files.BLOCK_BYTES)
    if b"\n{" in head and head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        yield from read_jsonl(span, settings)
    else:
        yield settings.too_long(span.file.path, 0, 0, settings.max_record_bytes)
