"""Defines a shard: one piece of the work that prepare splits its input into, what shapes it, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pretrain_cli.data.encoding.encoder import EncoderSettings
from pretrain_cli.data.reading.bad_records import Strictness
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.settings import MAX_RECORD_BYTES

DOCUMENT = np.dtype([("tokens", "<i8"), ("bytes", "<i8"), ("lost_bytes", "<i8"), ("hash", "<u8", 2), ("source", "<i2")])
"""An entry of a shard's table of documents. ``bytes`` are of UTF-8 text; ``lost_bytes`` of them have no token."""


@dataclass(frozen=True)
class Shard:
    """Spans of input whose token ids go into one file."""

    index: int
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """Bytes of input as stored."""
        return sum(span.size for span in self.spans)


@dataclass(frozen=True)
class ShardSettings:
    """All that shapes a shard's files, besides its input."""

    encoder: EncoderSettings
    dtype: str
    separator: str
    column: str
    encoding: str
    strict: Strictness
    cleaning: tuple[str, ...]
    near_dedup: bool = False
    max_record_bytes: int = MAX_RECORD_BYTES


@dataclass
class ShardCounts:
    """What was read, kept and left out. Bytes are of UTF-8 text; ``rejected`` counts bad records by reason.

    ``span_documents`` are the kept documents of each span; ``columns`` the text columns that were chosen: name →
    files, records looked at in them, of those with a text there, with null. ``separated``: plain text files with the
    document separator in them, and without. ``without_text``: files that gave none, "reason kind" → files, bytes as
    stored, paths of the first. ``first_failures``: reason → what is wrong with the first such file. ``losses``: a
    sentence for each file of which only a part was used, ``doubts`` for each that may be read wrongly. ``lost_bytes``
    have no token, in ``lossy_documents``.
    ``cleaning``: step → processor seconds, bytes that went in.
    """

    bytes_in: int = 0
    documents_in: int = 0
    kept_bytes: int = 0
    kept_documents: int = 0
    tokens: int = 0
    dropped_documents: dict[str, int] = field(default_factory=dict)
    dropped_bytes: dict[str, int] = field(default_factory=dict)
    changed_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    span_documents: list[int] = field(default_factory=list)
    columns: dict[str, list[int]] = field(default_factory=dict)
    separated: list[int] = field(default_factory=lambda: [0, 0])
    without_text: dict[str, tuple[int, int, list[str]]] = field(default_factory=dict)
    first_failures: dict[str, str] = field(default_factory=dict)
    lossy_documents: int = 0
    lost_bytes: int = 0
    cleaning: dict[str, list[float]] = field(default_factory=dict)

    def drop(self, reason: str, size: int, documents: int = 1) -> None:
        self.dropped_bytes[reason] = self.dropped_bytes.get(reason, 0) + size
        if documents:
            self.dropped_documents[reason] = self.dropped_documents.get(reason, 0) + documents
