"""Finds the column that holds the text, in a sample of a file's records, and takes the text out of a record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pretrain_cli.data.reading.documents import Document, Rejected
from pretrain_cli.errors import DataError

COLUMN_NAMES = ("text", "content", "body")
COLUMN_HINT = "Name it with --text-column NAME, or leave such files out with --on-error skip."
SAMPLED_RECORDS, SAMPLED_BYTES = 500, 1 << 20
"""How much of a file's beginning is looked at."""
DEEPEST = 4
LONG_VALUE = 200
"""Characters that neither an id, a date nor an address has."""
DOMINANT = 8
"""How many times the characters of the next column make one the text, without asking."""
COLUMNS_SHOWN, LONGEST_SHOWN = 12, 60
NESTED = 4
"""How many times its characters may be nested in lists beside it."""
WORDS = re.compile(r"[^\W\d_]+.*?\s.*?[^\W\d_]+", re.DOTALL)
MISSING = object()
JSON_TYPES: dict[type, str] = {
    **{list: "a list", dict: "an object", int: "a number", float: "a number", bool: "true or false", bytes: "bytes"}
}


@dataclass(frozen=True)
class ColumnChoice:
    """The column that was taken for the text, and why.

    Attributes:
        name: of the column; ``a.b`` is ``b`` inside ``a``.
        sampled: records looked at.
        filled: of them, those with a text there.
        nulls: of them, those with null there.
    """

    name: str
    sampled: int
    filled: int
    nulls: int


@dataclass
class _Column:
    """Counts of one column: records with a string, with null, with words; characters, also of strings in lists."""

    filled: int = 0
    nulls: int = 0
    wordy: int = 0
    characters: int = 0
    nested: int = 0
    other: set[str] = field(default_factory=set)


def choose_column(records: Sequence[object], path: str) -> ColumnChoice:
    """The text column of a sample: text, content or body, if most records have a string there; else the one with prose.

    Ids, dates, addresses and single words are no prose: where a column called text holds those, it is a label. Two
    columns with prose are told apart by their length.

    Raises:
        DataError: there is none, more than one, or most of the text is in lists.
    """
    sample = [record for record in records if isinstance(record, dict)]
    columns = _survey(sample)
    half = 0.5 * len(sample)
    usual = _named(columns, max(1, half))
    able = columns
    if usual and _is_label(usual, columns):
        able = {name: column for name, column in columns.items() if name != usual}
        usual = ""
    name = usual or _prose(able, half) or _named(able, 1) or _prose(able, 1)
    if not name and not any(column.wordy or column.nested for column in columns.values()):
        name = _named(columns, 0)
    lists = [other for other, column in columns.items() if column.nested]
    if name and not usual and sum(columns[other].nested for other in lists) > NESTED * columns[name].characters:
        largest = max(lists, key=lambda other: columns[other].nested)
        raise DataError(
            f"{path}: most of the text is in lists, in '{largest}', which aren't read.",
            f"Write it into a column of its own, for example with jq, or take '{name}' with --text-column {name}.",
        )
    if not name:
        raise _no_choice(columns, lists, path)
    return ColumnChoice(name, len(sample), columns[name].filled, columns[name].nulls)


def _survey(sample: Sequence[Mapping[str, object]]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    for record in sample:
        for name, value in _flatten(record):
            column = columns.setdefault(name, _Column())
            if value is None:
                column.nulls += 1
            elif isinstance(value, str):
                if value.strip():
                    column.filled += 1
                    column.characters += len(value)
                    column.wordy += _is_wordy(value)
            elif isinstance(value, list):
                column.nested += _characters(value)
                column.other.add("list")
            else:
                column.other.add(type(value).__name__)
    return columns


def _flatten(record: Mapping[str, object], before: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Each column with its value; of a record inside, its columns."""
    for name, value in record.items():
        if isinstance(value, dict) and value and depth < DEEPEST:
            yield from _flatten(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}", value


def _characters(value: object, depth: int = 0) -> int:
    """Characters of the strings with words in a value, at any depth."""
    if isinstance(value, str):
        return len(value) if _is_wordy(value) else 0
    if depth > DEEPEST:
        return 0
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_characters(entry, depth + 1) for entry in entries)


def _is_wordy(value: str) -> bool:
    """Whether it may be prose: two words with a space between, a long text, or one in a script without spaces."""
    if len(value) > LONG_VALUE:
        return True
    return bool(WORDS.search(value)) or sum(not char.isascii() and char.isalpha() for char in value) > 1


def _named(columns: Mapping[str, _Column], least: float) -> str:
    """The first column with a name for text that at least so many records have a text in."""
    usual = {name.lower(): name for name in reversed([*columns]) if columns[name].filled >= least}
    names = [name for name in COLUMN_NAMES if name in usual]
    inside = [name for end in COLUMN_NAMES for name in usual if name.endswith(f".{end}")]
    return usual[[*names, *inside][0]] if names or inside else ""


def _prose(columns: Mapping[str, _Column], least: float) -> str:
    """The column with prose in at least so many records, if it is the only one or by far the longest."""
    prose = [name for name, column in columns.items() if column.filled >= max(1, least) and _is_prose(column)]
    prose.sort(key=lambda name: -columns[name].characters)
    if not prose or (len(prose) > 1 and columns[prose[0]].characters < DOMINANT * columns[prose[1]].characters):
        return ""
    return prose[0]


def _is_prose(column: _Column) -> bool:
    return 2 * column.wordy >= column.filled


def _is_label(name: str, columns: Mapping[str, _Column]) -> bool:
    """Whether a column holds no prose, while another one does, or lists do, that are by far longer."""
    own = columns[name]
    longest = max((other.characters for other in columns.values() if other.filled and _is_prose(other)), default=0)
    nested = sum(other.nested for other in columns.values())
    return not _is_prose(own) and max(longest, nested) >= DOMINANT * own.characters


def _no_choice(columns: Mapping[str, _Column], lists: list[str], path: str) -> DataError:
    told = told_columns([*columns])
    if lists and not any(column.wordy for column in columns.values()):
        where = " and ".join(f"'{name}'" for name in lists[:3])
        return DataError(
            f"{path}: no column holds text; what there is is in lists, in {where}. It has: {told}.",
            "Write it into a column of its own, for example with jq, or leave such files out with --on-error skip.",
        )
    longest = max(columns, key=lambda name: columns[name].characters, default="")
    hint = f" The longest texts are in '{longest}'." if longest and columns[longest].wordy else ""
    return DataError(f"{path}: which column holds the text? It has: {told}.{hint}", COLUMN_HINT)


def missing_column(path: str, column: str, columns: Sequence[str]) -> DataError:
    """The error of a table without the column that was asked for."""
    return DataError(f"{path} has no column '{column}'; it has: {told_columns(columns)}.", COLUMN_HINT)


def told_columns(columns: Sequence[str]) -> str:
    """The names of the first columns, for an error message: a table may have thousands."""
    shown = [name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}…" for name in columns[:COLUMNS_SHOWN]]
    more = len(columns) - len(shown)
    return ", ".join([*shown, f"and {more:,} more"] if more else shown) or "none"


def value_at(record: Mapping[str, object], column: str) -> object:
    """The value of a column, or of ``b`` inside ``a`` for ``a.b``; ``MISSING`` where there is none."""
    if column in record:
        return record[column]
    value: object = record
    for name in column.split("."):
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def text_of(record: object, column: str, path: str, number: int, offset: int, size: int) -> Document | Rejected:
    """The document in ``column`` of a record, or in a record that is text itself.

    Args:
        record: what the file holds: a mapping by column, or a text.
        column: that holds the text.
        path: of the file.
        number: line or record, counted from 1.
        offset: byte of the file that the record starts at.
        size: bytes of the record, counted where it is rejected.
    """
    text = value_at(record, column) if isinstance(record, dict) else record
    if not isinstance(text, str):
        reason = "no_text_column" if text is MISSING else "text_is_null" if text is None else "text_is_no_string"
        return Rejected(path, number, offset, size, reason, _detail(text, column))
    try:
        text.encode()
    except UnicodeEncodeError:
        return Rejected(path, number, offset, size, "lone_surrogate", "half of a surrogate pair, \\ud800 to \\udfff")
    if not text:
        return Rejected(path, number, offset, size, "empty")
    return Document(text, path, number, offset)


def _detail(value: object, column: str) -> str:
    if value is MISSING:
        return f"there is no '{column}'"
    return "" if value is None else f"it is {JSON_TYPES.get(type(value), type(value).__name__)}"
