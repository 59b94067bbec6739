"""Defines the records that flow from a reader to the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_cli.errors import DataError

HARMLESS_REASONS = {"empty", "only_whitespace", "text_is_null"}
"""Reasons to reject a record that are not an error, whatever ``data.on_error`` says."""
UNREADABLE_MEMBER = "unreadable_member"
"""The reason of a file in an archive, of which the others are read."""
UNREADABLE_HINT = "Check whether the file is complete. To leave out such files and list them: --on-error skip"


@dataclass(slots=True)
class Document:
    """A document's text and the place it came from.

    A document too long to hold comes in parts: consecutive records with ``final=False`` on all but the last, whose
    texts, joined, are the document's.
    """

    text: str
    path: str
    line: int = 0
    """Line or record it starts at, counted from 1; 0: the whole file."""
    offset: int = 0
    """Byte of the (decompressed) file it starts at."""
    final: bool = True


@dataclass(slots=True)
class Rejected:
    """A record that gave no text: where it was, how many bytes it took, and why."""

    path: str
    line: int
    offset: int
    size: int
    reason: str
    detail: str = ""


@dataclass(slots=True)
class DocumentBatch:
    """Many whole documents, none empty, each with its UTF-8 bytes: what a reader finds in a block without a bad record.

    A million one-line documents as separate records would take more time than encoding them.
    """

    texts: list[str]
    encoded: list[bytes]
    path: str


Record = Document | DocumentBatch | Rejected


def make_batch(texts: list[str], path: str) -> DocumentBatch | None:
    """The texts that aren't empty as one record; None if there are none.

    Raises:
        UnicodeEncodeError: a text holds half a surrogate pair.
    """
    texts = list(filter(None, texts))
    return DocumentBatch(texts, list(map(str.encode, texts)), path) if texts else None


def texts_of(record: Record) -> list[str]:
    """The texts in a record; a rejected one has none."""
    if isinstance(record, DocumentBatch):
        return record.texts
    return [record.text] if isinstance(record, Document) else []


def place(record: Document | Rejected) -> str:
    """Where a record is, for an error message: ``file.jsonl, line 3, byte 41``."""
    line = f", line {record.line:,}" if record.line else ""
    return f"{record.path}{line}, byte {record.offset:,}"


def bad_record(record: Rejected) -> DataError:
    """The error of a record that gives no text, or of a file that can't be read."""
    if record.reason in ("unreadable_file", UNREADABLE_MEMBER):
        return DataError(record.detail, UNREADABLE_HINT)
    detail = f": {record.detail}" if record.detail else ""
    return DataError(
        f"{place(record)}: {record.reason.replace('_', ' ')}{detail}.",
        "Fix it, or leave such records out with --on-error skip.",
    )
