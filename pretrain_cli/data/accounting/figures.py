"""Adds up what the rows hold by split, by source and by file, from the documents of one shard at a time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pretrain_cli.addresses import redact_address
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.input_files import kind_of
from pretrain_cli.data.rows.assembly import SplitCounts
from pretrain_cli.manifest_records import HeldOutRecord, SourceRecord, SplitRecord, Unwritable

LISTED = 100
"""Documents without tokens for some of their bytes that are named at most, of each split."""
MOST_FILES, MOST_DOCUMENTS = 10, 200
"""Files that most is held out of, and held-out documents, that are named."""


def split_record(counts: SplitCounts, size: int) -> SplitRecord:
    """What a split holds; ``size`` in bytes of text."""
    return SplitRecord(rows=counts.rows, tokens=counts.tokens, documents=counts.documents, bytes=size)


@dataclass(frozen=True)
class Figures:
    """What the rows hold.

    Attributes:
        sources: what each source gives, by its number.
        document_tokens: documents by the next power of two of their tokens, BOS and EOS counted. One whose end is held
            out is in it twice.
        unwritable: bytes that the tokenizer has no token for.
        held_out: what the validation split is of; None where nothing is held out.
    """

    sources: dict[int, SourceRecord]
    document_tokens: dict[str, int]
    unwritable: Unwritable
    held_out: HeldOutRecord | None


def add_figures(selection: Selection, counts: list[ShardCounts], border_tokens: int) -> Figures:
    """Go through both splits; ``border_tokens`` are those around each document."""
    sources: dict[int, dict[str, int]] = {}
    lengths: dict[int, int] = {}
    lost: dict[str, int] = {}
    held = _HeldOut(selection)
    for split, prefix in (("train", ""), ("validation", "validation_")):
        listed = 0
        copies = selection.copies() if split == "train" else ()
        pieces = itertools.chain(((each, False) for each in selection.ranges(split)), ((each, True) for each in copies))
        for ranges, again in pieces:
            _add_sources(sources, prefix, ranges)
            powers = np.ceil(np.log2(np.maximum(ranges.tokens + border_tokens, 1))).astype(np.int64)
            for power, many in enumerate(np.bincount(powers).tolist()):
                if many:
                    lengths[1 << power] = lengths.get(1 << power, 0) + many
            for at in np.flatnonzero(ranges.lost_bytes)[: LISTED - listed].tolist():
                lost[str(ranges.documents[at])] = int(ranges.lost_bytes[at])
                listed += 1
            if not again:
                held.add(ranges, held=split == "validation")
    unwritable = Unwritable(
        documents=sum(count.lossy_documents for count in counts),
        bytes=sum(count.lost_bytes for count in counts),
        by_document=lost,
    )
    records = {source: SourceRecord(**found) for source, found in sources.items()}
    tokens = {str(limit): lengths[limit] for limit in sorted(lengths)}
    return Figures(records, tokens, unwritable, held.record())


def _add_sources(sources: dict[int, dict[str, int]], prefix: str, ranges: DocumentRanges) -> None:
    """What each source gives to a split. A document taken twice counts twice.

    Of a document whose tail is held out, the bytes are shared by its tokens.
    """
    all_tokens, ends = np.maximum(ranges.all_tokens, 1), ranges.first + ranges.tokens
    sizes = ranges.all_bytes * ends // all_tokens - ranges.all_bytes * ranges.first // all_tokens
    for source in np.unique(ranges.sources).tolist():
        own, found = ranges.sources == source, sources.setdefault(source, {})
        for name, number in (
            ("documents", int(own.sum())),
            ("tokens", int(ranges.tokens[own].sum())),
            ("bytes", int(sizes[own].sum())),
        ):
            found[prefix + name] = found.get(prefix + name, 0) + number


@dataclass
class _HeldOut:
    """Sums up what is held out, by kind and by file. The documents of a file follow each other."""

    selection: Selection
    by_kind: dict[bool, dict[int, int]] = field(default_factory=lambda: {True: {}, False: {}})
    largest: list[tuple[int, int]] = field(default_factory=list)
    named: dict[int, int] = field(default_factory=dict)
    documents: int = 0
    ends: int = 0
    file: int = -1
    of_file: int = 0

    def add(self, ranges: DocumentRanges, *, held: bool) -> None:
        numbers = self.selection.encoded.file_kinds[ranges.files]
        sums = self.by_kind[held]
        for kind in np.unique(numbers).tolist():
            sums[kind] = sums.get(kind, 0) + int(ranges.sizes[numbers == kind].sum())
        if not held:
            return
        self.documents += len(ranges)
        self.ends += int((ranges.first > 0).sum())
        room = MOST_DOCUMENTS - len(self.named)
        self.named |= dict(zip(ranges.documents[:room].tolist(), ranges.files[:room].tolist(), strict=True))
        files, starts = np.unique(ranges.files, return_index=True)
        for file, size in zip(files.tolist(), np.add.reduceat(ranges.sizes, starts) if len(files) else (), strict=True):
            if file != self.file:
                self._end_file()
                self.file = file
            self.of_file += int(size)

    def _end_file(self) -> None:
        if self.of_file:
            heapq.heappush(self.largest, (self.of_file, -self.file))
            if len(self.largest) > MOST_FILES:
                heapq.heappop(self.largest)
        self.of_file = 0

    def record(self) -> HeldOutRecord | None:
        self._end_file()
        if not self.documents:
            return None
        files, total = self.selection.encoded.plan.files, sum(self.by_kind[True].values())
        kinds: dict[str, tuple[int, int]] = {}
        for name, part, rest in self._kinds(files):
            before = kinds.get(name, (0, 0))
            kinds[name] = (before[0] + part, before[1] + part + rest)
        most = sorted(self.largest, reverse=True)
        return HeldOutRecord(
            whole=self.documents - self.ends,
            ends=self.ends,
            kinds={kind: round(part / whole, 4) for kind, (part, whole) in sorted(kinds.items()) if whole},
            files={_name(files, -place): round(size / total, 4) for size, place in most},
            documents={str(document): _name(files, place) for document, place in self.named.items()},
        )

    def _kinds(self, files: FileTable) -> Iterator[tuple[str, int, int]]:
        """(ending, bytes held out, bytes trained on) of each source's kind."""
        numbers = self.selection.encoded.file_kinds
        for kind in sorted(self.by_kind[True].keys() | self.by_kind[False].keys()):
            name = kind_of(files.name(int(np.argmax(numbers == kind)))) or "other"
            yield name, self.by_kind[True].get(kind, 0), self.by_kind[False].get(kind, 0)


def _name(files: FileTable, place: int) -> str:
    """A file's own name."""
    path = redact_address(files.name(place))
    return path.rstrip("/").rpartition("/")[2] or path
