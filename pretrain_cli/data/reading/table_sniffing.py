"""Tells by its beginning that a file with the ending of a text is a table."""

from __future__ import annotations

import codecs
import csv
import re
from contextlib import suppress
from typing import IO, NamedTuple

from pretrain_cli.data.reading.csv_dialect import find_dialect
from pretrain_cli.data.reading.text_column import COLUMN_NAMES, SAMPLED_RECORDS, choose_column
from pretrain_cli.errors import DataError

NAME = re.compile(rb"[\w.-]{1,40}")
SEPARATORS = (b",", b";", b"\t", b"|")
LONGEST_HEADER = 2000
LEAST_ROWS, ROWS_LOOKED_AT = 3, 1000
ALIKE = 0.9
"""Share of rows as wide as the header: a text whose first line looks like one has fewer."""
TEXT_NAMES = {name.encode() for name in COLUMN_NAMES}


def separator_of(start: bytes) -> str:
    """What separates the fields of a file's first line, if that may be a table's header; else "".

    All are names, without the space that follows a comma in prose; or one is a name that text has in tables.
    """
    header, ended, _ = start[:LONGEST_HEADER].removeprefix(codecs.BOM_UTF8).partition(b"\n")
    for mark in SEPARATORS if ended else ():
        if mark in header:
            fields = [field.strip(b' \r"') for field in header.split(mark)]
            named = any(field.lower() in TEXT_NAMES for field in fields)
            if named or all(NAME.fullmatch(field.strip(b'"')) for field in header.rstrip().split(mark)):
                return mark.decode()
    return ""


def peek_table(stream: IO[bytes]) -> bool:
    """Whether a stream's first line may be a table's header; where that can't be seen without reading it, it isn't."""
    peek = getattr(stream, "peek", None)
    return peek is not None and bool(separator_of(bytes(peek(LONGEST_HEADER))))


class Table(NamedTuple):
    """What a text is, if it is a table: its separator, its columns, and whether one of them holds text."""

    separator: str
    columns: list[str]
    text: bool


def table_of(head: bytes, complete: bool) -> Table | None:
    """What a file that begins with ``head`` is as a table; None for what is none.

    ``complete``: ``head`` is all of the file.
    """
    usual = separator_of(head)
    if not usual:
        return None
    lines = head.decode("utf-8", "replace").removeprefix("\ufeff").splitlines(keepends=True)
    dialect = find_dialect("".join(lines[:ROWS_LOOKED_AT]), usual, complete=False)
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the last row may be cut
        rows += filter(None, dialect.reader(lines if complete else lines[:-1]))
    header, rows = rows[0], rows[1:]
    if len(rows) < LEAST_ROWS or sum(len(row) == len(header) for row in rows) < ALIKE * len(rows):
        return None
    whole = [dict(zip(header, row, strict=True)) for row in rows[:SAMPLED_RECORDS] if len(row) == len(header)]
    try:
        choose_column(whole, "")
    except DataError:
        return Table(dialect.separator, header, False)
    return Table(dialect.separator, header, True)
