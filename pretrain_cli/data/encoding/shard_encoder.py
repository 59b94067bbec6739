"""Turns the records of a shard into token ids in a file, and a table with an entry for each document."""

from __future__ import annotations

import functools
import itertools
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

from pretrain_cli.data.cleaning.near_duplicates import Signatures, signature
from pretrain_cli.data.cleaning.steps import Cleaner
from pretrain_cli.data.encoding.encoder import PIECE_CHARACTERS, Encoder
from pretrain_cli.data.encoding.id_writer import IdWriter, Position
from pretrain_cli.data.encoding.shards import DOCUMENT, ShardCounts, ShardSettings
from pretrain_cli.data.reading.documents import HARMLESS_REASONS, Document, DocumentBatch, Record, Rejected, bad_record
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError
from pretrain_cli.heap import give_back_large_blocks
from pretrain_cli.interruptible import Stopped

BATCH_CHARACTERS = 1 << 19


class ShardEncoder:
    """Takes records, has their texts encoded while the next ones are read, and keeps a table of the documents."""

    def __init__(
        self, settings: ShardSettings, encoder: Encoder, sink: BinaryIO, stop: threading.Event | None = None
    ) -> None:
        self.settings, self.encoder, self.stop = settings, encoder, stop or threading.Event()
        self.counts = ShardCounts()
        self.cleaner = Cleaner(settings.cleaning)
        self.signatures: list[Signatures] = []
        self.rejected: list[Rejected] = []
        self._judges_documents = bool(self.cleaner.steps or settings.near_dedup)
        self._writer = IdWriter(encoder, settings.dtype, sink, self.stop)
        self._sizes, self._sources = array("q"), array("h")
        self._hashes: list[bytes] = []
        self._texts: list[str] = []
        self._owners = array("q")
        self._characters = 0
        self._open: _LongDocument | None = None

    def __enter__(self) -> ShardEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.drain()
                self.counts.tokens = sum(int(tokens.sum()) for _, tokens, _ in self._writer.made)
        finally:
            self._writer.close()

    def read_span(self, span: Span) -> None:
        """Take all records of ``span``.

        Raises:
            DataError: a bad record or file, where ``on_error`` is "fail".
        """
        own = self.settings
        reading = ReadSettings(own.separator, own.column, own.encoding, own.max_record_bytes)
        before, rows_before = self.counts.documents_in, len(self._sizes)
        try:
            records = read(span, reading)
            for record in _join_parts(records, reading) if self._judges_documents else records:
                if self.stop.is_set():
                    raise Stopped
                self._take(record, span)
        except DataError as error:
            if self.settings.on_error == "fail":
                raise
            size = self._abandon()
            if self.counts.documents_in == before:  # nothing of it was used: all of it is left out
                rest = max(0, span.file.size - size)
                self.counts.bytes_in += rest
                size += rest
            self.counts.documents_in += 1
            self._reject(Rejected(span.file.path, 0, 0, size, "unreadable_file", error.message), size)
        for reason, size in reading.skipped_bytes.items():
            self.counts.bytes_in += size
            self.counts.drop(reason, size, documents=0)
        self.counts.notes += reading.notes
        self.counts.span_documents.append(len(self._sizes) - rows_before)

    def table(self) -> npt.NDArray[np.void]:
        """The documents in reading order, each a ``DOCUMENT``. Call it after the end of the ``with`` block."""
        table = np.zeros(len(self._sizes), DOCUMENT)
        table["bytes"], table["source"] = self._sizes, self._sources
        table["hash"] = np.frombuffer(b"".join(self._hashes), ">u8").reshape(-1, 2)
        for owners, tokens, lost in self._writer.made:
            np.add.at(table["tokens"], owners, tokens)
            np.add.at(table["lost_bytes"], owners, lost)
        return table

    def _take(self, record: Record, span: Span) -> None:
        if isinstance(record, Rejected):
            record.line += _lines_before(span)
            if self.settings.on_error == "fail" and record.reason not in HARMLESS_REASONS:
                raise bad_record(record)
            self.counts.bytes_in += record.size
            self.counts.documents_in += 1
            self._reject(record, record.size)
        elif isinstance(record, DocumentBatch):
            self._take_batch(record, span)
        elif self._open is not None or not record.final:
            self._take_part(record, span)
        else:
            self._take_one(record.text, span)

    def _take_batch(self, batch: DocumentBatch, span: Span) -> None:
        if self._judges_documents:
            for text in batch.texts:
                self._take_one(text, span)
            return
        batch = self._without_blank(batch)
        if not batch.texts:
            return
        first, many = len(self._sizes), len(batch.texts)
        self._sizes.extend(map(len, batch.encoded))
        self._sources.extend(itertools.repeat(span.file.source, many))
        self._hashes.append(b"".join(map(xxhash.xxh3_128_digest, batch.encoded)))
        size = sum(self._sizes[first:])
        self.counts.bytes_in += size
        self.counts.documents_in += many
        self.counts.kept_bytes += size
        self.counts.kept_documents += many
        characters = list(map(len, batch.texts))
        if max(characters) > PIECE_CHARACTERS:
            for owner, text in enumerate(batch.texts, first):
                self._add(text, owner)
            return
        self._texts += batch.texts
        self._owners.extend(range(first, first + many))
        self._characters += sum(characters)
        if self._characters >= BATCH_CHARACTERS:
            self._flush()

    def _without_blank(self, batch: DocumentBatch) -> DocumentBatch:
        filled = [not blank for blank in map(str.isspace, batch.texts)]
        if all(filled):
            return batch
        texts = list(itertools.compress(batch.texts, filled))
        encoded = list(itertools.compress(batch.encoded, filled))
        size, many = sum(map(len, batch.encoded)) - sum(map(len, encoded)), len(filled) - len(texts)
        self.counts.bytes_in += size
        self.counts.documents_in += many
        self.counts.drop("only_whitespace", size, many)
        return DocumentBatch(texts, encoded, batch.path)

    def _take_one(self, text: str, span: Span) -> None:
        encoded = text.encode()
        size = len(encoded)
        self.counts.documents_in += 1
        self.counts.bytes_in += size
        if text.isspace():
            self.counts.drop("only_whitespace", size)
            return
        cleaned, reason = self.cleaner.apply(text)
        if reason:
            self.counts.drop(reason, size)
            return
        if cleaned is not text:
            encoded = cleaned.encode()
            self.counts.changed_bytes += size - len(encoded)
            size = len(encoded)
        self._begin(span, size, xxhash.xxh3_128_digest(encoded))
        self.counts.kept_bytes += size
        if self.settings.near_dedup:
            self.signatures.append(signature(cleaned))
        self._add(cleaned, len(self._sizes) - 1)

    def _begin(self, span: Span, size: int, digest: bytes) -> None:
        self._sizes.append(size)
        self._sources.append(span.file.source)
        self._hashes.append(digest)
        self.counts.kept_documents += 1

    def _add(self, text: str, owner: int) -> None:
        for piece in self.encoder.pieces(text):
            self._texts.append(piece)
            self._owners.append(owner)
            self._characters += len(piece)
            if self._characters >= BATCH_CHARACTERS:
                self._flush()

    def _take_part(self, record: Document, span: Span) -> None:
        """Of a document too long to hold, encode what comes before the last possible cut; the rest waits."""
        if self._open is None:
            self._flush()
            self._begin(span, 0, b"")
            give_back_large_blocks()
            self._open = _LongDocument(self._writer.position())
        long = self._open
        encoded = record.text.encode()
        long.digest.update(encoded)
        long.size += len(encoded)
        long.blank = long.blank and (record.text.isspace() or not record.text)
        index = len(self._sizes) - 1
        if record.final:
            self._add("".join([*long.waiting, record.text]), index)
            self._flush()
            self._finish_long(long)
            return
        # Only the new part is searched for a cut: what waits has none.
        cut = self.encoder.last_cut(record.text)
        if cut:
            self._add("".join([*long.waiting, record.text[:cut]]), index)
            long.waiting = [record.text[cut + self.encoder.skips :]]
        else:
            long.waiting.append(record.text)

    def _finish_long(self, long: _LongDocument) -> None:
        self._open = None
        self.counts.documents_in += 1
        self.counts.bytes_in += long.size
        if long.blank:
            self._rewind(long)
            self.counts.drop("only_whitespace", long.size)
            return
        self._sizes[-1], self._hashes[-1] = long.size, long.digest.digest()
        self.counts.kept_bytes += long.size

    def _rewind(self, long: _LongDocument) -> None:
        self._texts, self._owners, self._characters = [], array("q"), 0
        self._writer.rewind(long.begins)
        for column in (self._sizes, self._sources, self._hashes):
            column.pop()
        self.counts.kept_documents -= 1

    def _abandon(self) -> int:
        """Forget the long document of a damaged file; returns its bytes so far."""
        long, self._open = self._open, None
        if long is None:
            return 0
        self._rewind(long)
        self.counts.bytes_in += long.size
        return long.size

    def _reject(self, record: Rejected, size: int) -> None:
        self.counts.drop(record.reason, size)
        self.counts.rejected[record.reason] = self.counts.rejected.get(record.reason, 0) + 1
        self.rejected.append(record)

    def _flush(self) -> None:
        if self._texts:
            self._writer.submit(self._texts, np.array(self._owners))
            self._texts, self._owners, self._characters = [], array("q"), 0


@dataclass
class _LongDocument:
    begins: Position
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)
    size: int = 0
    blank: bool = True
    waiting: list[str] = field(default_factory=list)


def _join_parts(records: Iterator[Record], settings: ReadSettings) -> Iterator[Record]:
    """The records with the parts of each long document joined: a cleaning rule judges whole documents.

    One of more than ``settings.max_record_bytes`` is rejected as soon as it is that long, and the rest is skipped.
    """
    held: list[str] = []
    size, skipping = 0, False
    for record in records:
        if not isinstance(record, Document):
            yield record
            continue
        many = len(record.text.encode())
        if skipping:
            settings.skip("too_long", many)
        elif size + many > settings.max_record_bytes:
            held, skipping = [], True
            yield settings.too_long(record.path, record.line, record.offset, size + many)
        else:
            held.append(record.text)
            size += many
        if record.final:
            if not skipping:
                yield Document("".join(held), record.path)
            held, size, skipping = [], 0, False


@functools.lru_cache(maxsize=4)  # asked for at each bad record of a span
def _lines_before(span: Span) -> int:
    if not span.start:
        return 0
    lines, left = 0, span.start
    with open(span.file.path, "rb") as stream:
        while left > 0 and (block := stream.read(min(left, 1 << 24))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines
