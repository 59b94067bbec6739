"""Finds how a table's fields are separated, quoted and escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SAMPLED_CHARACTERS = 1 << 16
DETECTED_CHARACTERS = 1 << 14
"""Given to clevercsv, which takes time for more."""
SEPARATORS = ",;\t|^~\x01"
STRAY_QUOTES = 0.3
"""Share of fields that begin with a quote and don't end with one, above which quotes are ordinary characters."""


@dataclass(frozen=True)
class Dialect:
    """What separates fields, and what quotes and escapes in them ("": nothing does); spaces may follow separators."""

    separator: str
    quote: str = '"'
    escape: str = ""
    spaced: bool = False

    def told(self) -> str:
        """In words: "separated by ';', with a backslash before quotes"."""
        name = {"\t": "tabs", "\x01": "the control character \\x01"}.get(self.separator, f"'{self.separator}'")
        quotes = "" if self.quote == '"' else f", quoted by {self.quote}" if self.quote else ", without quotes"
        return f"separated by {name}{quotes}{', with a backslash before quotes' if self.escape else ''}"

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """A strict reader of lines: quotes that close nowhere, or in the middle of a field, are errors."""
        return csv.reader(
            lines,
            delimiter=self.separator,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape or None,
            doublequote=True,
            skipinitialspace=self.spaced,
            strict=True,
        )


def find_dialect(sample: str, usual: str, complete: bool) -> Dialect:
    """The dialect of a table: the usual one or another that every row fits, else what clevercsv finds.

    Args:
        sample: the table's beginning.
        usual: what separates the fields by the ending of its name.
        complete: ``sample`` is all of it.
    """
    if sample.startswith("sep=") and len(line := sample.split("\n", 1)[0].rstrip("\r")) == 5:
        return Dialect(line[4])
    header = sample.split("\n", 1)[0]
    others = [mark for mark in SEPARATORS if mark != usual and mark in header]
    for mark in (usual, *others):  # of others one that only the header has room for: text is full of commas
        likely = Dialect(mark, spaced=_is_spaced(sample, mark))
        if (mark == usual or usual not in header) and _fits(sample, likely, complete):
            return likely
    import clevercsv

    try:
        found = clevercsv.Sniffer().sniff(sample[:DETECTED_CHARACTERS], verbose=False)
    except clevercsv.Error:  # it finds none
        found = None
    separator = found.delimiter if found and found.delimiter and found.delimiter in SEPARATORS else usual
    escape = "\\" if found and found.escapechar == "\\" else ""
    quote = "'" if found and found.quotechar == "'" else '"'
    quote = quote if _quotes(sample, separator, quote, escape) else ""
    return Dialect(separator, quote, escape, _is_spaced(sample, separator))


def _is_spaced(sample: str, separator: str) -> bool:
    """Whether a space follows each separator of the header."""
    names = sample.split("\n", 1)[0].split(separator)[1:]
    return bool(names) and all(name.startswith(" ") for name in names)


def _fits(sample: str, dialect: Dialect, complete: bool) -> bool:
    """Whether all rows have as many fields as the first, more than one if another separator might do."""
    widths: list[int] = []
    try:
        for row in filter(None, dialect.reader(io.StringIO(sample, newline=""))):
            widths.append(len(row))
    except csv.Error as error:
        if complete or "unexpected end" not in str(error):
            return False
    if not complete and len(widths) > 1:  # the sample ends in the middle of the last one
        widths.pop()
    if len(set(widths)) != 1:
        return False
    first = sample.split("\n", 1)[0]
    return widths[0] > 1 or not any(mark in first for mark in SEPARATORS.replace(dialect.separator, ""))


def _quotes(sample: str, separator: str, quote: str, escape: str) -> bool:
    """Whether quotes enclose fields, rather than being characters of them."""
    inside = rf"(?:[^{quote}\\]|\\.|{quote}{quote})*" if escape else f"(?:[^{quote}]|{quote}{quote})*"
    begin = rf"(?:^|(?<=[\n\r{re.escape(separator)}])){quote}"
    fields = re.compile(rf"{begin}(?:({inside}{quote}(?=[\r\n{re.escape(separator)}]|$))|)", re.DOTALL)
    closed = [match.group(1) is not None for match in fields.finditer(sample)]
    stray = closed.count(False)
    return any(closed) and (stray < 3 or stray < STRAY_QUOTES * len(closed))
