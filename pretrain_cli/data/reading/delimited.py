"""Reads csv and tsv tables."""

from __future__ import annotations

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator
from typing import IO

from pretrain_cli.data.reading.csv_dialect import SAMPLED_CHARACTERS, Dialect, find_dialect
from pretrain_cli.data.reading.documents import DocumentBatch, Record, Rejected
from pretrain_cli.data.reading.input_files import BLOCK_BYTES, Span
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_blocks import decode_stream
from pretrain_cli.data.reading.text_column import (
    COLUMN_NAMES,
    SAMPLED_RECORDS,
    choose_column,
    missing_column,
    text_of,
)
from pretrain_cli.errors import DataError

ROWS_AT_ONCE = 1024
SPANNED_LINES = 5
"""A field of so many lines that each have a row's separators isn't one: its quote never closes."""
ESCAPED_LINES = 100
"""Lines of a row that each end in a backslash, up to which it needs no quote to go on."""
ALIKE = 0.9
"""Share of rows, or of lines, that tells what rows look like."""
NULL = "\\N"
"""What MySQL and PostgreSQL write for null."""
LONGEST_NAME = 100
"""Characters of a column's name; a longer one is text."""


def read_delimited(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A table with a header line; quoted fields may hold line ends."""
    path, usual = span.file.name, "\t" if span.file.format == "tsv" else ","
    csv.field_size_limit(settings.max_record_bytes)
    decoded = decode_stream(stream, settings.encoding, path)
    if decoded is None:
        yield Rejected(path, 0, 0, 0, "empty")
        return
    encoding, blocks = decoded
    settings.say_guess(path, encoding)
    first = next(blocks, "")
    sample, complete = first[:SAMPLED_CHARACTERS], len(first) < min(SAMPLED_CHARACTERS, BLOCK_BYTES // 4)
    dialect = find_dialect(sample, usual, complete)
    if dialect != Dialect(usual):
        settings.notes.append(f"{path}: its fields are {dialect.told()}.")
    lines = _Lines(_split(itertools.chain([first], blocks), path, settings), encoding.name, encoding.mark_bytes)
    if sample.startswith("sep="):
        next(lines)
        lines.end_row()
    table = _Table(path, dialect, lines, settings)
    header = table.read_header()
    column = settings.column
    rows = [row for row in _sample_rows(sample, dialect, header) if row != header]
    table.look_at(rows)
    if column == "auto":
        column = settings.take_column(choose_column([_values(header, row) for row in rows], path)) if rows else ""
        column = column or choose_column([dict.fromkeys(header, "a text")], path).name
        _check_header(path, header, column)
    if column not in header:
        raise missing_column(path, column, header)
    yield from table.read_texts(header, column)


def _sample_rows(sample: str, dialect: Dialect, header: list[str]) -> list[list[str]]:
    """The first rows that have as many fields as the header, or empty ones after them."""
    rows: list[list[str]] = []
    reader = dialect.reader(io.StringIO(sample, newline=""))
    while len(rows) < SAMPLED_RECORDS:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            continue
        rows += [] if len(row) < len(header) or any(row[len(header) :]) else [row[: len(header)]]
    return rows


def _values(header: list[str], row: list[str]) -> dict[str, str | None]:
    return {name: None if field == NULL else field for name, field in zip(header, row, strict=True)}


def _check_header(path: str, header: list[str], column: str) -> None:
    numbers = any(name.strip().isdigit() for name in header) and column.lower() not in COLUMN_NAMES
    if len(column) > LONGEST_NAME or numbers:  # a year may head a column, beside one called text
        raise DataError(
            f"{path} has no header line: its first line is a row ('{', '.join(header)[:60]}').",
            "Put a line with the columns' names before it, such as id,text.",
        )


class _StillOpenError(Exception):
    """A quote is open at the end of a line, where it is known what comes of that."""


class _Lines:
    """The lines of a table, with those of the row that is being read, and where it begins.

    Attributes:
        row: the lines of the row so far.
        number, offset: line and byte that it begins at.
        open_until: a line before which a row that was given up has a quote open at the end of every line. A row that
            begins there, and has a quote open at the end of a line there too, goes on as that one did.
    """

    def __init__(self, lines: Iterator[str], encoding: str, offset: int) -> None:
        self._lines, self._encoding = lines, encoding
        self._back: deque[str] = deque()
        self._plain = encoding in ("utf-8", "cp1252", "iso8859-1", "ascii")
        self.row: list[str] = []
        self.number, self.offset = 1, offset
        self.open_until = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.row and self.last < self.open_until and not self._may_be_escaped():
            raise _StillOpenError
        line = self._back.popleft() if self._back else next(self._lines)
        self.row.append(line)
        return line

    def _may_be_escaped(self) -> bool:
        return self.row[-1].rstrip("\r\n").endswith("\\") and len(self.row) < ESCAPED_LINES

    @property
    def last(self) -> int:
        """The number of the row's last line so far."""
        return self.number + len(self.row) - 1

    def size(self, line: str) -> int:
        return len(line) if self._plain and line.isascii() else len(line.encode(self._encoding, "replace"))

    def end_row(self) -> None:
        """The row is read."""
        for line in self.row:
            self.offset += self.size(line)
        self.number += len(self.row)
        self.row.clear()

    def give_up(self) -> None:
        """Leave out the row's first line, and read the others again."""
        self._back.extendleft(reversed(self.row[1:]))
        del self.row[1:]
        self.end_row()


class _Table:
    """The rows of a table, good and bad."""

    def __init__(self, path: str, dialect: Dialect, lines: _Lines, settings: ReadSettings) -> None:
        self._path, self._dialect, self._lines, self._settings = path, dialect, lines, settings
        self._reader = dialect.reader(lines)
        self._bad: Rejected | None = None
        self._cause = ("", "")
        self._numbers: list[int] = []
        self._long_fields = False

    def look_at(self, rows: list[list[str]]) -> None:
        """Learn from the first rows what a row looks like: which columns hold numbers, whether fields have many lines.

        A field of many lines may hold a table itself: its lines are rows of this one only if they look like them.
        """
        for place in range(len(rows[0]) if rows else 0):
            if sum(row[place].strip().isdigit() for row in rows) >= ALIKE * len(rows):
                self._numbers.append(place)
        long = sum(any(field.count("\n") > SPANNED_LINES for field in row) for row in rows)
        self._long_fields = long > max(1, (1 - ALIKE) * len(rows))

    def read_header(self) -> list[str]:
        try:
            header = next(row for row in self._reader if row)
        except (StopIteration, csv.Error) as error:
            raise DataError(
                f"{self._path} has no header line that can be read: {error or 'it has no line'}.",
                "Put a line with the columns' names first, such as id,text.",
            ) from error
        self._lines.end_row()
        return header

    def read_texts(self, header: list[str], column: str) -> Iterator[Record]:
        """The texts of ``column``, many at once, and each bad row where it is."""
        place = header.index(column)
        while (block := list(itertools.islice(self._read_rows(len(header)), ROWS_AT_ONCE))) or self._bad:
            texts = [row[place] for row, _, _ in block]
            if texts and all(texts) and NULL not in texts:
                yield DocumentBatch(texts, [text.encode() for text in texts], self._path)
            else:
                for (row, line, offset), text in zip(block, texts, strict=True):
                    value = None if text == NULL else text
                    yield text_of({column: value}, column, self._path, line, offset, sum(map(len, row)))
            if self._bad:
                yield self._bad
                self._bad = None

    def _read_rows(self, width: int) -> Iterator[tuple[list[str], int, int]]:
        """(fields, line, byte) of each row that is as wide as the header, up to the next bad one."""
        lines = self._lines
        while True:
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._bad = self._broken(error)
                return
            except _StillOpenError:
                self._bad = self._reject(*self._cause, lines.open_until)
                return
            number, offset = lines.number, lines.offset
            if len(lines.row) > SPANNED_LINES and self._spans_rows(width):
                told = f"it would end in line {lines.last:,}"
                self._bad = self._reject("quote_never_closes", told, lines.last - SPANNED_LINES + 1)
                return
            if row and len(row) != width:
                if len(row) < width or any(row[width:]):
                    few = "fewer" if len(row) < width else "more"
                    size = sum(map(lines.size, lines.row))
                    lines.end_row()
                    told = f"{len(row)} instead of {width}"
                    self._bad = Rejected(self._path, number, offset, size, f"{few}_fields_than_the_header", told)
                    return
                row = row[:width]
            lines.end_row()
            if row:
                yield row, number, offset

    def _broken(self, error: csv.Error) -> Rejected:
        if "field limit" in str(error):  # a quote that is never closed makes one field of all that follows
            raise _too_long(self._path, self._lines.number, self._settings) from error
        closes = "unexpected end" not in str(error)
        cause = ("quotes_in_a_field", str(error)) if closes else ("quote_never_closes", "")
        return self._reject(*cause, self._lines.last)

    def _reject(self, reason: str, detail: str, open_until: int) -> Rejected:
        lines = self._lines
        if open_until > lines.open_until:
            lines.open_until, self._cause = open_until, (reason, detail)
        bad = Rejected(self._path, lines.number, lines.offset, lines.size(lines.row[0]), reason, detail)
        lines.give_up()
        return bad

    def _spans_rows(self, width: int) -> bool:
        """Whether nearly all lines of a row look like rows, where a row of so many lines is the exception."""
        if width < 2 or self._long_fields:
            return False
        fields = [line.split(self._dialect.separator) for line in self._lines.row[1:]]
        alike = sum(len(row) == width and all(row[at].strip().isdigit() for at in self._numbers) for row in fields)
        return alike >= ALIKE * len(fields)


def _split(blocks: Iterator[str], path: str, settings: ReadSettings) -> Iterator[str]:
    """The lines of a text that comes in blocks."""
    held: list[str] = []
    size = number = 0
    for block in filter(None, blocks):
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


def _too_long(path: str, line: int, settings: ReadSettings) -> DataError:
    return DataError(
        f"{path}, line {line:,}: too long: {settings.limit}.",
        "Fix it, or raise the limit with --set data.max_record_bytes=BYTES.",
    )
