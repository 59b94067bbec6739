"""One shard task: a range of the input in, its token ids and counts out. A pure function of (range, settings)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from pretrain_cli.artifacts import writing_to
from pretrain_cli.data.cleaning import Cleaner
from pretrain_cli.data.documents import Document, Record, Rejected, place
from pretrain_cli.data.inputs import STDIN, InputFile, is_url
from pretrain_cli.data.near import PERMUTATIONS, Signatures, signature
from pretrain_cli.data.readers import ReadSettings, Span, read
from pretrain_cli.data.tokens import Encoder, EncoderSettings
from pretrain_cli.errors import DataError

TASK_BYTES = 16 << 20
BATCH_CHARACTERS = 4 << 20
REASONS_OF_NO_CONCERN = {"empty", "only_whitespace"}
DOCUMENT = np.dtype(
    [
        ("tokens", "<i8"),
        ("bytes", "<i8"),
        ("lost_bytes", "<i8"),
        ("hash", "<u8", 2),
        ("source", "<i2"),
        ("file", "<i4"),
        ("line", "<i8"),
        ("offset", "<i8"),
    ]
)


@dataclass(frozen=True)
class Task:
    """Spans of input that one worker turns into one shard."""

    index: int
    spans: tuple[Span, ...]
    first_file: int
    """Index, among all inputs, of the first span's file; a new file counts one more."""

    @property
    def size(self) -> int:
        return sum(_span_bytes(span) for span in self.spans)


@dataclass(frozen=True)
class TaskSettings:
    """All that shapes a shard beside its input range."""

    encoder: EncoderSettings
    dtype: str
    separator: str
    column: str
    encoding: str
    on_error: str
    cleaning: tuple[str, ...]
    near_dedup: bool = False


@dataclass
class TaskCounts:
    """What a task read, kept and left out. Bytes are of UTF-8 text."""

    bytes_in: int = 0
    documents_in: int = 0
    kept_bytes: int = 0
    kept_documents: int = 0
    tokens: int = 0
    dropped_documents: dict[str, int] = field(default_factory=dict)
    dropped_bytes: dict[str, int] = field(default_factory=dict)
    changed_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str, size: int, documents: int = 1) -> None:
        self.dropped_bytes[reason] = self.dropped_bytes.get(reason, 0) + size
        if documents:
            self.dropped_documents[reason] = self.dropped_documents.get(reason, 0) + documents


def _span_bytes(span: Span) -> int:
    return (span.file.size if span.end < 0 else span.end) - span.start


def plan_tasks(files: list[InputFile], task_bytes: int = TASK_BYTES) -> list[Task]:
    """Cut the input into tasks of about ``task_bytes``: small files together, large jsonl files by line ranges."""
    tasks: list[Task] = []
    spans: list[Span] = []
    first, held = 0, 0
    for number, file in enumerate(files):
        for span in _spans(file, task_bytes):
            if spans and held + max(0, _span_bytes(span)) > task_bytes:
                tasks.append(Task(len(tasks), tuple(spans), first))
                spans, held = [], 0
            if not spans:
                first = number
            spans.append(span)
            held += max(0, _span_bytes(span))
    if spans:
        tasks.append(Task(len(tasks), tuple(spans), first))
    return tasks


def _spans(file: InputFile, task_bytes: int) -> Iterator[Span]:
    splittable = file.format == "jsonl" and not file.compression and file.path != STDIN and not is_url(file.path)
    if not splittable or file.size <= task_bytes:
        yield Span(file)
        return
    start = 0
    with open(file.path, "rb") as stream:
        while start < file.size:
            stream.seek(min(start + task_bytes, file.size))
            stream.readline()
            end = stream.tell()
            yield Span(file, start, end)
            start = end


def shard_name(index: int) -> str:
    return f"task-{index:06d}"


def run_task(task: Task, settings: TaskSettings, folder: Path, encoder: Encoder | None = None) -> TaskCounts:
    """Read, clean and encode one task into ``folder``: NAME.ids, NAME.documents.npy, and NAME.json last.

    Raises:
        DataError: a bad record or file, where ``on_error`` is "fail".
    """
    encoder = encoder or Encoder(settings.encoder)
    name = shard_name(task.index)
    with writing_to(folder):
        ids_path, documents_path = folder / f"{name}.ids", folder / f"{name}.documents.npy"
        with open(ids_path, "wb") as sink:
            shard = _Shard(settings, encoder, sink)
            file_index, previous = task.first_file - 1, ""
            for span in task.spans:
                file_index += span.file.path != previous
                previous = span.file.path
                shard.read_span(span, file_index)
            shard.flush()
        np.save(documents_path, np.array(shard.documents, DOCUMENT))
        if settings.near_dedup:
            signatures = np.array(shard.signatures, np.uint32).reshape(-1, PERMUTATIONS)
            np.save(folder / f"{name}.signatures.npy", signatures)
        record = folder / f"{name}.json.part"
        record.write_text(json.dumps(asdict(shard.counts)))
        os.replace(record, folder / f"{name}.json")
    return shard.counts


def finished_task(folder: Path, index: int) -> TaskCounts | None:
    """The counts of a task whose shard is complete, or None."""
    path = folder / f"{shard_name(index)}.json"
    return TaskCounts(**json.loads(path.read_text())) if path.is_file() else None


class _Shard:
    """Collects documents into batches, encodes them, and appends their ids to the shard's file."""

    def __init__(self, settings: TaskSettings, encoder: Encoder, sink: BinaryIO) -> None:
        self.settings, self.encoder, self.sink = settings, encoder, sink
        self.counts = TaskCounts()
        self.documents: list[tuple[Any, ...]] = []
        self.cleaner = Cleaner(settings.cleaning)
        self.signatures: list[Signatures] = []
        self._texts: list[str] = []
        self._owners: list[int] = []
        self._characters = 0
        self._open: _LongDocument | None = None

    def read_span(self, span: Span, file_index: int) -> None:
        reading = ReadSettings(self.settings.separator, self.settings.column, self.settings.encoding)
        try:
            records = read(span, reading)
            if self.cleaner.steps or self.settings.near_dedup:
                records = join_parts(records)
            for record in records:
                self._take(record, span, file_index)
        except DataError as error:
            if self.settings.on_error == "fail":
                raise
            size = self._abandon()
            self.counts.documents_in += 1
            self._reject(Rejected(span.file.path, 0, 0, size, "unreadable_file", error.message), size)
        for reason, size in reading.skipped_bytes.items():
            self.counts.bytes_in += size
            self.counts.drop(reason, size, documents=0)
        self.counts.notes += reading.notes

    def _take(self, record: Record, span: Span, file_index: int) -> None:
        if isinstance(record, Rejected):
            if self.settings.on_error == "fail" and record.reason not in REASONS_OF_NO_CONCERN:
                record.line += _lines_before(span)
                raise bad_record(record)
            record.line += _lines_before(span)
            self.counts.bytes_in += record.size
            self.counts.documents_in += 1
            self._reject(record, record.size)
            return
        if self._open is not None or not record.final:
            self._take_part(record, span, file_index)
            return
        self.counts.documents_in += 1
        encoded = record.text.encode()
        size = len(encoded)
        self.counts.bytes_in += size
        if record.text.isspace():
            self.counts.drop("only_whitespace", size)
            return
        text, reason = self.cleaner.apply(record.text)
        if reason:
            self.counts.drop(reason, size)
            return
        if text is not record.text:
            encoded = text.encode()
            self.counts.changed_bytes += size - len(encoded)
            size = len(encoded)
        digest = xxhash.xxh3_128_intdigest(encoded)
        self._begin(size, digest, span, file_index, record)
        if self.settings.near_dedup:
            self.signatures.append(signature(text))
        self._add(text, len(self.documents) - 1)

    def _begin(self, size: int, digest: int, span: Span, file_index: int, record: Document) -> None:
        high, low = digest >> 64, digest & (1 << 64) - 1
        self.documents.append((0, size, 0, (high, low), span.file.source, file_index, record.line, record.offset))
        self.counts.kept_documents += 1
        self.counts.kept_bytes += size

    def _add(self, text: str, owner: int) -> None:
        for piece in self.encoder.pieces(text):
            self._texts.append(piece)
            self._owners.append(owner)
            self._characters += len(piece)
            if self._characters >= BATCH_CHARACTERS:
                self.flush()

    def _take_part(self, record: Document, span: Span, file_index: int) -> None:
        """A document too long to hold: what comes before the last safe cut is encoded, the rest waits."""
        if self._open is None:
            self.flush()
            self._begin(0, 0, span, file_index, record)
            self._open = _LongDocument(self.sink.tell(), xxhash.xxh3_128())
        long = self._open
        encoded = record.text.encode()
        long.digest.update(encoded)
        long.size += len(encoded)
        long.blank = long.blank and record.text.isspace()
        long.waiting.append(record.text)
        index = len(self.documents) - 1
        if self.encoder.settings.cut or record.final:
            text = "".join(long.waiting)
            cut = len(text) if record.final else self.encoder.last_cut(text)
            if cut:
                drops = self.encoder.settings.cut == "drop-space" and not record.final
                self._add(text[:cut], index)
                text = text[cut + drops :]
            long.waiting = [text] if text else []
        if record.final:
            self.flush()
            self._finish_long(long, index)

    def _finish_long(self, long: _LongDocument, index: int) -> None:
        self._open = None
        self.counts.documents_in += 1
        self.counts.bytes_in += long.size
        if long.blank:
            self._rewind(long)
            self.counts.drop("only_whitespace", long.size)
            return
        digest = long.digest.intdigest()
        row = list(self.documents[index])
        row[1], row[3] = long.size, (digest >> 64, digest & (1 << 64) - 1)
        self.documents[index] = tuple(row)
        self.counts.kept_bytes += long.size

    def _rewind(self, long: _LongDocument) -> None:
        self._texts, self._owners, self._characters = [], [], 0
        self.sink.seek(long.start)
        self.sink.truncate()
        self.counts.tokens -= self.documents.pop()[0]
        self.counts.kept_documents -= 1

    def _abandon(self) -> int:
        """Forget the long document whose file turned out to be damaged; its bytes so far."""
        long, self._open = self._open, None
        if long is None:
            return 0
        self._rewind(long)
        self.counts.bytes_in += long.size
        return long.size

    def _reject(self, record: Rejected, size: int) -> None:
        self.counts.drop(record.reason, size)
        self.counts.rejected.append(asdict(record))

    def flush(self) -> None:
        """Encode and write what is waiting."""
        if not self._texts:
            return
        ids, offsets = self.encoder.encode(self._texts)
        self.sink.write(ids.astype(self.settings.dtype, copy=False).tobytes())
        self.counts.tokens += len(ids)
        made = np.diff(offsets).tolist()
        lost = self.encoder.lost_bytes(self._texts, ids, offsets)
        for owner, group in itertools.groupby(zip(self._owners, made, lost, strict=True), lambda entry: entry[0]):
            row = list(self.documents[owner])
            for _, tokens, unwritten in group:
                row[0] += tokens
                row[2] += unwritten
            self.documents[owner] = tuple(row)
        self._texts, self._owners, self._characters = [], [], 0


@dataclass
class _LongDocument:
    start: int
    digest: Any
    size: int = 0
    blank: bool = True
    waiting: list[str] = field(default_factory=list)


def join_parts(records: Iterator[Record]) -> Iterator[Record]:
    """Put long documents back into one record each: a cleaning rule judges whole documents."""
    held: list[Document] = []
    for record in records:
        if isinstance(record, Document):
            held.append(record)
            if not record.final:
                continue
            first = held[0]
            yield Document("".join(part.text for part in held), first.path, first.line, first.offset)
            held = []
        else:
            yield record


def bad_record(record: Rejected) -> DataError:
    """The error of a record that gives no text."""
    detail = f": {record.detail}" if record.detail else ""
    where = place(record)
    return DataError(
        f"{where}: {record.reason.replace('_', ' ')}{detail}.",
        "Mend it, or leave such records out with --on-error skip.",
    )


def _lines_before(span: Span) -> int:
    if not span.start:
        return 0
    lines, left = 0, span.start
    with open(span.file.path, "rb") as stream:
        while left > 0 and (block := stream.read(min(left, 1 << 24))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines
