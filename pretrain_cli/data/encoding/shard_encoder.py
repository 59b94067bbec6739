"""Turns the records of a shard into token ids in a file, and a table with an entry for each document."""

from __future__ import annotations

import functools
import itertools
import threading
from array import array
from collections.abc import Iterator, Sequence
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
from pretrain_cli.data.reading.documents import (
    HARMLESS_REASONS,
    UNREADABLE_MEMBER,
    Document,
    DocumentBatch,
    Record,
    Rejected,
    bad_record,
)
from pretrain_cli.data.reading.folders import EXAMPLES, NO_ENDING
from pretrain_cli.data.reading.input_files import Span, kind_of, open_input
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings, add_numbers
from pretrain_cli.data.reading.small_files import read_simple
from pretrain_cli.errors import DataError
from pretrain_cli.heap import give_back_large_blocks
from pretrain_cli.interruptible import Stopped

BATCH_CHARACTERS = 1 << 19
SMALL_AT_ONCE = 512
"""Small files taken together."""


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
                self.counts.cleaning = self.cleaner.taken
                self.counts.tokens = sum(int(tokens.sum()) for _, tokens, _ in self._writer.made)
        finally:
            self._writer.close()

    def read_spans(self, spans: Sequence[Span]) -> None:
        """Take all records of ``spans``, in order; small plain text files many at a time.

        Raises:
            DataError: a bad record or file, where the settings' ``strict`` makes it an error.
        """
        one_document = not self.settings.separator and self.settings.encoding == "auto"
        simple: list[tuple[Span, str, bytes]] = []
        for span in spans:
            content = read_simple(span) if one_document else None
            if content is not None:
                simple.append((span, *content))
            if simple and (content is None or len(simple) >= SMALL_AT_ONCE):
                self._take_simple(simple)
                simple = []
            if content is None:
                self.read_span(span)
        if simple:
            self._take_simple(simple)

    def _take_simple(self, files: Sequence[tuple[Span, str, bytes]]) -> None:
        """Take files that are a document each."""
        if self.stop.is_set():
            raise Stopped
        for source, group in itertools.groupby(files, key=lambda file: file[0].file.source):
            spans, texts, encoded = map(list, zip(*group, strict=True))
            if self._judges_documents:
                for text in texts:
                    before = len(self._sizes)
                    self._take_one(text, source)
                    self.counts.span_documents.append(len(self._sizes) - before)
            else:
                self._take_batch(DocumentBatch(texts, encoded, ""), source)
                self.counts.span_documents.extend(itertools.repeat(1, len(spans)))

    def read_span(self, span: Span) -> None:
        """Take all records of ``span``.

        Raises:
            DataError: a bad record or file, where the settings' ``strict`` makes it an error.
        """
        own = self.settings
        reading = ReadSettings(own.separator, own.column, own.encoding, own.max_record_bytes)
        before, rows_before, rejected_before = self.counts.documents_in, len(self._sizes), len(self.rejected)
        try:
            records = read(span, reading)
            whole = self.settings.near_dedup or not self.cleaner.by_lines
            for record in _join_parts(records, reading) if whole else records:
                if self.stop.is_set():
                    raise Stopped
                self._take(record, span)
        except DataError as error:
            if self.settings.strict.files:
                raise
            size = self._abandon()
            if self.counts.documents_in == before:  # nothing of it was used: all of it is left out
                rest = max(0, span.file.size - size)
                self.counts.bytes_in += rest
                size += rest
            else:
                self.counts.losses.append(f"{error.message} What comes before is used, the rest is left out.")
            self.counts.documents_in += 1
            self._reject(Rejected(span.file.name, 0, 0, size, "unreadable_file", error.message), size)
        for reason, size in reading.skipped_bytes.items():
            self.counts.bytes_in += size
            self.counts.drop(reason, size, documents=0)
        self.counts.notes += reading.notes
        self.counts.doubts += reading.doubts
        self.counts.separated = [old + new for old, new in zip(self.counts.separated, reading.separated, strict=True)]
        if self.counts.documents_in == before + 1 and len(self.rejected) == rejected_before + 1:
            self._count_without_text(span, self.rejected[-1])
        for column, found in reading.columns.items():
            add_numbers(self.counts.columns, column, [1, *found])
        self.counts.span_documents.append(len(self._sizes) - rows_before)

    def _count_without_text(self, span: Span, rejected: Rejected) -> None:
        """Count a file of which nothing was used, where the whole of it was rejected."""
        file = span.file
        if rejected.line or span.start or 0 <= span.end < file.size:
            return
        key = f"{rejected.reason} {kind_of(file.name) or NO_ENDING}"
        files, size, examples = self.counts.without_text.get(key, (0, 0, []))
        shown = [*examples, file.name][:EXAMPLES]
        if rejected.reason == "unreadable_file":
            self.counts.first_failures.setdefault(rejected.reason, rejected.detail)
        self.counts.without_text[key] = (files + 1, size + max(0, file.size), shown)

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
            if self.settings.strict.records and record.reason not in HARMLESS_REASONS:
                raise bad_record(record)
            self._abandon_into(record)
            self.counts.bytes_in += record.size
            self.counts.documents_in += 1
            self._reject(record, record.size)
        elif isinstance(record, DocumentBatch):
            self._take_batch(record, span.file.source)
        elif self._open is not None or not record.final:
            self._take_part(record, span)
        else:
            self._take_one(record.text, span.file.source)

    def _take_batch(self, batch: DocumentBatch, source: int) -> None:
        if self._judges_documents:
            for text in batch.texts:
                self._take_one(text, source)
            return
        batch = self._without_blank(batch)
        if not batch.texts:
            return
        first, many = len(self._sizes), len(batch.texts)
        self._sizes.extend(map(len, batch.encoded))
        self._sources.extend(itertools.repeat(source, many))
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

    def _take_one(self, text: str, source: int) -> None:
        encoded = text.encode()
        size = len(encoded)
        self.counts.documents_in += 1
        self.counts.bytes_in += size
        if text.isspace():
            self.counts.drop("only_whitespace", size)
            return
        cleaned, reason = self.cleaner.apply(text, size)
        if reason:
            self.counts.drop(reason, size)
            return
        if cleaned is not text:
            encoded = cleaned.encode()
            self.counts.changed_bytes += size - len(encoded)
            size = len(encoded)
        self._begin(source, size, xxhash.xxh3_128_digest(encoded))
        self.counts.kept_bytes += size
        if self.settings.near_dedup:
            self.signatures.append(signature(cleaned))
        self._add(cleaned, len(self._sizes) - 1)

    def _begin(self, source: int, size: int, digest: bytes) -> None:
        self._sizes.append(size)
        self._sources.append(source)
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
            self._begin(span.file.source, 0, b"")
            give_back_large_blocks()
            self._open = _LongDocument(self._writer.position())
        long = self._open
        text = self._clean_lines(long, record) if self.cleaner.steps else record.text
        encoded = text.encode()
        long.digest.update(encoded)
        long.kept += len(encoded)
        long.size += len(encoded) if text is record.text else len(record.text.encode())
        long.was_blank = long.was_blank and (record.text.isspace() or not record.text)
        long.blank = long.blank and (text.isspace() or not text)
        index = len(self._sizes) - 1
        if record.final:
            self._add("".join([*long.waiting, text]), index)
            self._flush()
            self._finish_long(long)
            return
        # Only the new part is searched for a cut: what waits has none.
        cut = self.encoder.last_cut(text)
        if cut:
            self._add("".join([*long.waiting, text[:cut]]), index)
            long.waiting = [text[cut + self.encoder.skips :]]
        else:
            long.waiting.append(text)

    def _clean_lines(self, long: _LongDocument, record: Document) -> str:
        """The lines that end in this part, cleaned; the rest waits. A line longer than a record is cut at a space."""
        long.uncleaned.append(record.text)
        too_long = sum(map(len, long.uncleaned)) > self.settings.max_record_bytes
        if not (record.final or too_long or "\n" in record.text):
            return ""
        text = "".join(long.uncleaned)
        end = len(text) if record.final else text.rfind("\n") + 1 or text.rfind(" ") + 1 or len(text)
        long.uncleaned = [text[end:]]
        ready = text[:end]
        return self.cleaner.apply(ready, len(ready.encode()))[0]

    def _finish_long(self, long: _LongDocument) -> None:
        self._open = None
        self.counts.documents_in += 1
        self.counts.bytes_in += long.size
        if long.blank:
            self._rewind(long)
            self.counts.drop("only_whitespace" if long.was_blank else "emptied_by_cleaning", long.size)
            return
        self._sizes[-1], self._hashes[-1] = long.kept, long.digest.digest()
        self.counts.kept_bytes += long.kept
        self.counts.changed_bytes += long.size - long.kept

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

    def _abandon_into(self, record: Rejected) -> None:
        """Where a file in an archive breaks off within a long document, that is rejected with the rest of the file."""
        if record.reason == UNREADABLE_MEMBER and (size := self._abandon()):
            self.counts.bytes_in -= size
            record.size = max(record.size, size)

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
    """A document that comes in parts.

    Attributes:
        begins: where its ids begin.
        digest: of its text, cleaned.
        size, kept: bytes so far, as read and cleaned.
        was_blank, blank: nothing but white space has come so far, as read and cleaned.
        waiting: cleaned text that may not be cut from what comes next.
        uncleaned: the beginning of a line.
    """

    begins: Position
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)
    size: int = 0
    kept: int = 0
    was_blank: bool = True
    blank: bool = True
    waiting: list[str] = field(default_factory=list)
    uncleaned: list[str] = field(default_factory=list)


def _join_parts(records: Iterator[Record], settings: ReadSettings) -> Iterator[Record]:
    """The records with the parts of each long document joined: a cleaning rule judges whole documents.

    One of more than ``settings.max_record_bytes`` is rejected as soon as it is that long, and the rest is skipped.
    """
    held: list[str] = []
    size, skipping = 0, False
    for record in records:
        if not isinstance(record, Document):
            if isinstance(record, Rejected) and record.reason == UNREADABLE_MEMBER:  # the end of what is held
                record.size = max(record.size, size)
                held, size, skipping = [], 0, False
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
    with open_input(span.file.path) as stream:
        while left > 0 and (block := stream.read(min(left, 1 << 24))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines
