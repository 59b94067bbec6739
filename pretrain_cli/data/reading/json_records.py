"""Reads JSON: one record a line (jsonl), or one array of records."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import operator
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.binary import check_pointer, looks_binary
from pretrain_cli.data.reading.charsets import Encoding, find_encoding
from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected, make_batch
from pretrain_cli.data.reading.input_files import Span, read_at_most, with_head
from pretrain_cli.data.reading.json_shapes import column_of, find_records
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_blocks import decode_all, in_utf8
from pretrain_cli.data.reading.text_column import SAMPLED_BYTES, SAMPLED_RECORDS, choose_column, text_of
from pretrain_cli.errors import DataError, first_line

WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
SEQUENCE_MARK = b"\x1e"
"""Comes before each value in the JSON text sequences of RFC 7464."""
BETWEEN = re.compile("[ \t\r\n\x1e]*")
"""What may stand between the values of a JSON text."""
WRONG_LINES = 0.02
"""Share of lines that aren't UTF-8, up to which the file is, and those lines are damaged."""


def read_jsonl(source: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """One JSON object, or one JSON string, a line. The column is chosen at the file's start, for every span of it."""
    path, offset, number = span.file.name, span.start, 0
    head, stream = with_head(source, SAMPLED_BYTES)
    if _is_whole(head):
        if not span.start:  # the first span takes all of it: it has no lines
            yield from read_json(stream, span, settings)
        return
    encoding = _encoding(head, settings, path)
    column = settings.column
    if column == "auto" and (sample := _sample(head, encoding.name)):
        column = settings.take_column(choose_column(sample, path), not span.start)
    if not span.start:
        settings.say_guess(path, encoding)
    if span.start:
        source.seek(span.start)
        stream = source
    # A span ends where a line does, so the last block ends with it.
    left = sys.maxsize if span.end < 0 else span.end - span.start
    if encoding.name != "utf-8":
        stream, left = in_utf8(stream, encoding, left, path), sys.maxsize
    for lines in _line_blocks(stream, left, bool(span.file.compression), settings.max_record_bytes):
        if isinstance(lines, _LongLine):
            if lines.begins:
                number += 1
                yield settings.too_long(path, number, offset, lines.size)
            else:
                settings.skip("too_long", lines.size)
            offset += lines.size
            continue
        batch = _all_at_once(lines, column, path) if max(map(len, lines)) <= settings.max_record_bytes else None
        if batch:
            yield batch
        else:
            yield from _one_by_one(lines, column, path, number, offset, settings)
        number += len(lines)
        offset += sum(map(len, lines))


def _encoding(head: bytes, settings: ReadSettings, path: str) -> Encoding:
    """Of a file of lines that begins with ``head``: UTF-8 where nearly all lines are, so that each is judged alone."""
    complete = len(head) < SAMPLED_BYTES
    check_pointer(head, path)
    if settings.encoding == "auto" and not head.startswith(WIDE_MARKS):
        lines = head.split(b"\n")[: None if complete else -1]
        wrong = sum(not _is_utf8(line) for line in lines)
        if wrong <= WRONG_LINES * len(lines) and not looks_binary(head):
            return Encoding("utf-8")
    try:
        found = find_encoding(head, settings.encoding, path, complete)
    except DataError:
        if head.lstrip().startswith((b"{", b'"')):  # damaged: the good lines can be read
            return Encoding("utf-8")
        raise
    # A guess must make JSON of nearly all lines; otherwise the file is damaged, and each line is judged alone.
    if found.guessed and len(_sample(head, found.name)) < 0.9 * min(SAMPLED_RECORDS, len(head.split(b"\n"))):
        return Encoding("utf-8")
    return found


def _is_whole(head: bytes) -> bool:
    """Whether a file begins with a list of records, or an object over several lines: it isn't one record a line."""
    first, _, rest = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if first.startswith(SEQUENCE_MARK) or first.rstrip() in (b"{", b"[", b"[{"):
        return True
    return first.startswith(b"[") and not rest.strip()


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _sample(head: bytes, encoding: str) -> list[dict[str, Any]]:
    """The objects in the first lines."""
    found: list[dict[str, Any]] = []
    for line in head.decode(encoding, "ignore").lstrip("\ufeff").split("\n")[:SAMPLED_RECORDS]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        found += [value] if isinstance(value, dict) else []
    return found


@dataclass(frozen=True)
class _LongLine:
    """Bytes of a line that is too long: its beginning, or what follows of it."""

    size: int
    begins: bool


def _line_blocks(stream: IO[bytes], left: int, compressed: bool, limit: int) -> Iterator[list[bytes] | _LongLine]:
    """The lines in ``left`` bytes, about a block at a time; of a line of more than ``limit`` bytes only its size.

    Of a compressed file that is cut short, the lines before the cut come before the error: ``read`` would lose them.
    """
    if not compressed and left <= limit:  # no line can be too long: the least memory, no block is held beside them
        # readlines goes on until it has more bytes than it is told, not as many: one line too far at the end of a span.
        while left > 0 and (
            lines := stream.readlines(min(input_files.BLOCK_BYTES, left - 1)) if left > 1 else [stream.readline()]
        ):
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


_decoder = json.JSONDecoder()
_scan_json: Callable[[str, int], tuple[Any, int]] = cast(Any, _decoder).scan_once


def _all_at_once(lines: list[bytes], column: str, path: str) -> DocumentBatch | None:
    """All texts of lines without anything unusual, else None: no Python for each line but this."""
    try:
        decoded = list(map(bytes.decode, lines))
        # The scanner of json.loads. Where it meets no JSON at all it raises StopIteration, which ends the list early.
        scanned = list(map(_scan_json, decoded, itertools.repeat(0)))
        if len(scanned) < len(lines):
            return None
        values, ends = map(list, zip(*scanned, strict=True))
        if ends != list(map(len, map(str.rstrip, decoded, itertools.repeat(" \t\r\n")))):
            return None
        texts = list(map(operator.itemgetter(column), values))
        if set(map(type, texts)) != {str} or not all(texts):
            return None
        return make_batch(texts, path)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _one_by_one(
    lines: list[bytes], column: str, path: str, number: int, offset: int, settings: ReadSettings
) -> Iterator[Record]:
    """Each line's record; ``number`` and ``offset``: lines and bytes before them."""
    for raw in lines:
        number, here, offset = number + 1, offset, offset + len(raw)
        line = raw[3:] if here == 0 and raw.startswith(codecs.BOM_UTF8) else raw
        if len(raw) > settings.max_record_bytes:
            yield settings.too_long(path, number, here, len(raw))
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode().rstrip("\r\n"))  # given bytes, json would guess the encoding of each line
        except (ValueError, RecursionError) as error:
            yield Rejected(path, number, here, len(raw), "not_json", first_line(error))
            continue
        if column == "auto" and isinstance(value, dict):  # none in the file's beginning
            column = settings.take_column(choose_column([value], path))
        yield text_of(value, column, path, number, here, len(raw))


def read_json(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A JSON array of records, wherever in the file it is, one record, a table by columns, or one record a line.

    Several objects one after the other are records too, as `jq` writes them, or with the marks of RFC 7464.
    """
    path = span.file.name
    head, stream = with_head(stream, input_files.BLOCK_BYTES)
    if _is_lines(head):
        yield from read_jsonl(stream, span, settings)
        return
    raw = read_at_most(stream, settings.max_record_bytes)
    if raw is None:
        yield settings.too_long(path, 0, 0, settings.max_record_bytes)
        return
    try:
        encoding, text = decode_all(raw, settings.encoding, path)
        settings.say_guess(path, encoding)
        value = _value(text)
    except (ValueError, RecursionError) as error:
        yield Rejected(path, 1, int(getattr(error, "pos", 0)), len(raw), "not_json", first_line(error))
        return
    records, choice = find_records(value, settings.column, path)
    settings.take_column(choice)
    column = column_of(choice, settings.column)
    for number, entry in enumerate(records, 1):
        yield text_of(entry, column, path, number, 0, 0)


def _value(text: str) -> Any:
    """The value of a JSON text; of several one after the other, all in a list.

    Raises:
        ValueError: it isn't JSON.
    """
    values: list[Any] = []
    at = _next_value(text, 0)
    while at < len(text) or not values:
        value, end = _decoder.raw_decode(text, at)
        values.append(value)
        at = _next_value(text, end)
    return values[0] if len(values) == 1 else values


def _next_value(text: str, at: int) -> int:
    found = BETWEEN.match(text, at)
    return found.end() if found else at


def _is_lines(head: bytes) -> bool:
    """Whether a file begins with several lines that are each an object."""
    lines = [line for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n", 3)[:3] if line.strip()]
    if len(lines) < 2 or not lines[0].lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        # A line that is broken or longer than the head: the next one begins with a brace and no space before it.
        return lines[1].startswith(b"{") and not lines[0].rstrip().endswith((b"{", b"[", b","))
