"""What flows from a reader to the encoder: a document, many short ones, a part of a very long one, or a bad record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Document:
    """A document's text and the place it came from.

    A document too long to hold comes as several consecutive records with ``final=False`` on all but the last; their
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
class Batch:
    """Many whole documents, none empty, each with its UTF-8 bytes: what a reader finds in a block without a bad record.

    A million one-line documents as records of their own would cost more time than their tokens.
    """

    texts: list[str]
    encoded: list[bytes]
    path: str


Record = Document | Batch | Rejected


def place(record: Document | Rejected) -> str:
    """Where a record is, for an error message: ``file.jsonl, line 3, byte 41``."""
    line = f", line {record.line}" if record.line else ""
    return f"{record.path}{line}, byte {record.offset}"
