"""Finds the records in a JSON file: a list of them, one inside another object, or a table written by columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pretrain_cli.data.reading.text_column import (
    COLUMN_NAMES,
    DEEPEST,
    SAMPLED_RECORDS,
    ColumnChoice,
    choose_column,
    value_at,
)
from pretrain_cli.errors import DataError

OUTER = 4
"""How many times as much text a list inside must have to be taken instead of what is around it."""

Place = tuple[str, ...]
"""The keys that lead to a list of records."""


def find_records(value: object, column: str, path: str) -> tuple[list[Any], ColumnChoice | None]:
    """The records of a parsed JSON file, and the column that was chosen (None: it was named, or each is a text).

    They are the list of objects with the most text in one column, wherever it is: ``[...]``, ``{"data": [...]}``,
    ``{"data": [{"paragraphs": [...]}]}``; or one table by columns, as pandas writes them.

    Raises:
        DataError: no record has a text column.
    """
    if isinstance(value, list) and value and not any(isinstance(entry, (dict, list)) for entry in value):
        return value, None
    if "[]." in column:  # as a choice names it
        return _records_at(value, tuple(column.split("[].")[:-1])), None
    best: tuple[int, Place, ColumnChoice | None] | None = None
    refusal: DataError | None = None
    for place, sample in _places(value):
        try:
            choice = choose_column(sample, path) if column == "auto" else None
        except DataError as error:
            refusal = refusal or error
            continue
        name = choice.name if choice else column
        texts = [text for record in sample if isinstance(text := value_at(record, name), str)]
        weight = sum(map(len, texts)) * (OUTER if name in COLUMN_NAMES else 1)
        if texts and (best is None or weight > OUTER * best[0]):
            best = (weight, place, choice)
    if best is None:
        if column != "auto" or refusal is None:
            return _records_at(value, ()), None
        raise refusal
    _, place, choice = best
    if choice and place:
        inside = "".join(f"{key}[]." for key in place)
        choice = ColumnChoice(f"{inside}{choice.name}", choice.sampled, choice.filled, choice.nulls)
    return _records_at(value, place), choice


def column_of(choice: ColumnChoice | None, column: str) -> str:
    """The name of the chosen column inside a record; ``column`` where none was chosen."""
    return (choice.name if choice else column).rpartition("[].")[2]


def _places(value: object, place: Place = ()) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
    """Each list of objects, from the outside in, with a sample of it; an object alone is a list of one."""
    records = [record for record in _records_at(value, (), SAMPLED_RECORDS) if isinstance(record, dict)]
    if records:
        yield place, records
    if len(place) > DEEPEST:
        return
    keys = dict.fromkeys(key for record in records for key, entry in record.items() if isinstance(entry, (list, dict)))
    for key in keys:
        inside: list[Any] = []
        for record in records:
            entry = record.get(key)
            if isinstance(entry, list) or (isinstance(entry, dict) and len(records) == 1):
                inside += [each for each in _table(entry) if isinstance(each, dict)][:SAMPLED_RECORDS]
        if inside:
            yield from _places(inside[:SAMPLED_RECORDS], (*place, key))


def _records_at(value: object, place: Place, most: int | None = None) -> list[Any]:
    """All records at a place, or the first ``most``."""
    records = _table(value)[:most]
    for key in place:
        records = [each for record in records if isinstance(record, dict) for each in _table(record.get(key))]
    return records


def _table(value: object) -> list[Any]:
    """The records of a value: a list as it is, a table by columns or by rows, else the value alone."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [] if value is None else [value]
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):  # "split"
        return [dict(zip(map(str, names), row, strict=False)) for row in rows]
    columns = list(value.values())
    if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        if any(isinstance(entry, dict) for column in columns for entry in column[:SAMPLED_RECORDS]):
            return [value]
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    if all(isinstance(column, dict) and column for column in columns):
        return _by_columns_or_rows(value)
    return [value]


def _by_columns_or_rows(value: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """``{"text": {"0": …, "1": …}}`` or ``{"0": {"text": …}, "1": {"text": …}}``, else the object alone."""
    outer, inner = list(value), list(next(iter(value.values())))
    if any(isinstance(entry, (dict, list)) for column in value.values() for entry in column.values()):
        return list(value.values()) if _are_numbers(outer) else [value]
    alike = all(list(column) == inner for column in value.values())
    if _are_numbers(inner) and alike:
        return [{name: value[name][row] for name in outer} for row in inner]
    if _are_numbers(outer) or (alike and len(outer) > 1 and any(name in COLUMN_NAMES for name in inner)):
        return list(value.values())
    if alike and any(name in COLUMN_NAMES for name in outer):
        return [{name: value[name][row] for name in outer} for row in inner]
    return list(value.values()) if alike and len(outer) > len(inner) else [value]


def _are_numbers(names: list[str]) -> bool:
    return all(str(name).isdigit() for name in names)
