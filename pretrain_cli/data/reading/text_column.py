"""Takes the text out of one record of a table or of a JSON file."""

from __future__ import annotations

from collections.abc import Mapping

from pretrain_cli.data.reading.documents import Document, Rejected
from pretrain_cli.errors import DataError

COLUMN_NAMES = ("text", "content", "body")
COLUMN_HINT = "Name it with --text-column NAME."


def choose_column(record: Mapping[str, object], path: str) -> str:
    """The text column of a record: text, content, body, or the only column with text in it.

    Raises:
        DataError: there is none, or more than one.
    """
    for name in COLUMN_NAMES:
        if name in record:
            return name
    texts = [name for name, value in record.items() if isinstance(value, str)]
    if len(texts) == 1:
        return texts[0]
    columns = ", ".join(record) or "none"
    raise DataError(f"{path}: which column holds the text? It has: {columns}.", COLUMN_HINT)


def missing_column(path: str, column: str, columns: list[str]) -> DataError:
    """The error of a table without the column that was asked for."""
    return DataError(f"{path} has no column '{column}'; it has: {', '.join(columns)}.", COLUMN_HINT)


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
    text = record.get(column) if isinstance(record, dict) else record
    if not isinstance(text, str):
        missing = isinstance(record, dict) and column not in record
        reason = "no_text_column" if missing else "text_is_null" if text is None else "text_is_no_string"
        return Rejected(path, number, offset, size, reason)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Rejected(path, number, offset, size, "lone_surrogate", "half of a surrogate pair, \\ud800 to \\udfff")
    if not text:
        return Rejected(path, number, offset, size, "empty")
    return Document(text, path, number, offset)
