"""What flows from a reader to the encoder: one record per document, or per part of a very long one."""

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


Record = Document | Rejected


def place(record: Record) -> str:
    """Where a record is, for an error message: ``file.jsonl, line 3, byte 41``."""
    line = f", line {record.line}" if record.line else ""
    return f"{record.path}{line}, byte {record.offset}"
