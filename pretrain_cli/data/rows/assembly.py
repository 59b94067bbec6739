"""Packs the ids of a split's documents into rows, and writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.encoding.encoded import Ints
from pretrain_cli.data.rows.layout import RowSettings
from pretrain_cli.data.rows.packing import PACKINGS, RowPlan, group_documents, group_tokens
from pretrain_cli.data.rows.schema import PackedBatch
from pretrain_cli.data.rows.writer import RowWriter
from pretrain_cli.records import FileRecord

CHUNK_TOKENS = 1 << 18


@dataclass(frozen=True)
class SplitCounts:
    """What went into a split's rows.

    ``marks``: BOS and EOS in it; ``tail``: tokens that filled no row; ``parts``: rows of each part; ``files``: what was
    written.
    """

    rows: int
    tokens: int
    documents: int
    marks: int
    tail: int
    pieces: int
    parts: tuple[int, ...]
    files: dict[str, FileRecord] = field(default_factory=dict)


def write_split(
    parts: Iterable[Iterable[DocumentRanges]],
    ids_file: Callable[[int], Path],
    settings: RowSettings,
    folder: Path,
    advance: Callable[[int], None],
) -> SplitCounts:
    """Pack ``parts``, each in rows of its own, and write the rows to ``folder``, group by group.

    ``ids_file`` names the file with a shard's ids; ``advance`` gets the tokens done so far.
    """
    length = settings.sequence_length
    placed = done = tail = 0
    rows: list[int] = []
    with RowWriter(folder, length, settings.dtype) as writer, _WriterThread(writer.write) as hand_over:
        assembler = _Assembler(ids_file, settings, hand_over)
        for part in parts:
            packer, first, before = PACKINGS[settings.packing](length), assembler.taken, assembler.rows
            sizes = map(assembler.take, part)
            for group in group_documents(sizes, group_tokens(length), length):
                numbered = replace(group, documents=group.documents + first)
                placed += assembler.write(packer.add(numbered))
                assembler.forget(packer.open_documents(), int(numbered.documents[-1]))
                done += int(group.sizes.sum())
                advance(done)
            placed += assembler.write(packer.finish())
            tail += packer.tail
            rows.append(assembler.rows - before)
    counts = (placed, assembler.documents, assembler.marks, tail, assembler.pieces)
    return SplitCounts(writer.rows, *counts, tuple(rows), writer.files)


class _WriterThread:
    """Writes batches in a separate thread, in order, while the next one is put together."""

    def __init__(self, write: Callable[[PackedBatch], None]) -> None:
        self._write, self._thread = write, ThreadPoolExecutor(1)
        self._waiting: Future[None] | None = None

    def __enter__(self) -> Callable[[PackedBatch], None]:
        return self._take

    def _take(self, batch: PackedBatch) -> None:
        if self._waiting is not None:
            self._waiting.result()
        self._waiting = self._thread.submit(self._write, batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if kind is None and self._waiting is not None:
            self._waiting.result()


class _Assembler:
    """Copies the ids that a plan names into rows.

    A plan's documents are the ranges as they come; what is known of them is forgotten once no open row holds them.
    """

    def __init__(
        self, ids_file: Callable[[int], Path], settings: RowSettings, hand_over: Callable[[PackedBatch], None]
    ) -> None:
        self.ids_file, self.settings, self.hand_over = ids_file, settings, hand_over
        self.pieces = self.taken = self.documents = self.marks = self.rows = 0
        self._numbers = np.empty(0, np.int64)
        self._ranges: DocumentRanges | None = None

    def take(self, ranges: DocumentRanges) -> Ints:
        """The tokens of more ranges, BOS and EOS counted."""
        self._numbers = np.concatenate([self._numbers, self.taken + np.arange(len(ranges))])
        self._ranges = ranges if self._ranges is None else self._ranges.and_then(ranges)
        self.taken += len(ranges)
        self.documents += int((ranges.before == 0).sum())
        marks = self.settings.marks(ranges)
        self.marks += int(marks.sum())
        return ranges.tokens + marks

    def forget(self, needed: Ints, done: int) -> None:
        """Drop what is known of the documents before ``done``, but for those ``needed``."""
        assert self._ranges is not None
        keep = np.isin(self._numbers, needed) | (self._numbers >= done)
        self._numbers, self._ranges = self._numbers[keep], self._ranges.where(keep)

    def write(self, plan: RowPlan) -> int:
        """Write a plan's rows in chunks of bounded size; the tokens written."""
        rows_at_once = max(1, CHUNK_TOKENS // self.settings.sequence_length)
        self.pieces += len(plan.lengths)
        self.rows += len(plan.counts)
        ends = np.concatenate([[0], np.cumsum(plan.counts)])
        for start in range(0, len(plan.counts), rows_at_once):
            stop = min(start + rows_at_once, len(plan.counts))
            first, last = ends[start], ends[stop]
            self._write_chunk(
                plan.counts[start:stop], plan.documents[first:last], plan.starts[first:last], plan.lengths[first:last]
            )
        return int(plan.lengths.sum())

    def _write_chunk(self, counts: Ints, documents: Ints, starts: Ints, lengths: Ints) -> None:
        assert self._ranges is not None
        length, settings, ranges = self.settings.sequence_length, self.settings, self._ranges
        documents = np.searchsorted(self._numbers, documents)
        flat = np.full(len(counts) * length, settings.pad, settings.dtype)
        row_of = np.repeat(np.arange(len(counts)), counts)
        ends = np.cumsum(lengths)
        before_row = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])[:-1]]
        places = row_of * length + ends - lengths - np.repeat(before_row, counts)
        tokens = ranges.tokens[documents]
        bos = ranges.opens[documents] if settings.bos is not None else np.zeros(len(documents), bool)
        # A range is BOS + ids + EOS; of a piece, [low, high) is the range of ids.
        low = np.maximum(starts - bos, 0)
        high = np.minimum(starts + lengths - bos, tokens)
        if settings.bos is not None:
            flat[places[(starts == 0) & bos]] = settings.bos
        if settings.eos is not None:
            last = (starts + lengths == tokens + bos + 1) & ranges.closes[documents]
            flat[(places + lengths - 1)[last]] = settings.eos
        self._copy(
            flat,
            places + low - (starts - bos),
            ranges.shards[documents],
            ranges.offsets[documents] + low,
            np.maximum(high - low, 0),
        )
        self.hand_over(
            PackedBatch(
                flat.reshape(-1, length),
                counts,
                lengths.astype(np.int32),
                ranges.documents[documents],
                starts + ranges.before[documents],
                ranges.sources[documents].astype(np.int16),
            )
        )

    def _copy(
        self,
        flat: npt.NDArray[np.unsignedinteger],
        to: Ints,
        shard_of: npt.NDArray[np.int32],
        sources: Ints,
        sizes: Ints,
    ) -> None:
        for shard in np.unique(shard_of).tolist():
            chosen = np.flatnonzero((shard_of == shard) & (sizes > 0))
            if not len(chosen):
                continue
            file, dtype = self.ids_file(shard), self.settings.dtype
            place, source, size = _runs(to[chosen], sources[chosen], sizes[chosen])
            # A read costs 3 us; a slice of a mapping 0.5 us, and up to 64 kB of pages that stay until the mapping goes.
            if size.mean() > 1024 or len(size) < 256:
                _read_into(flat, file, place, source, size)
                continue
            ids = _map(file, dtype)
            if size.mean() > 128:  # long pieces: a slice each; short ones: one gather, without Python per piece
                for at, start, many in zip(place.tolist(), source.tolist(), size.tolist(), strict=True):
                    flat[at : at + many] = ids[start : start + many]
            else:
                within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
                flat[np.repeat(place, size) + within] = ids[np.repeat(source, size) + within]
            del ids  # before the next is mapped


def _runs(place: Ints, source: Ints, size: Ints) -> tuple[Ints, Ints, Ints]:
    """The pieces, joined where they follow each other in both the rows and the shard."""
    joined = (place[1:] == place[:-1] + size[:-1]) & (source[1:] == source[:-1] + size[:-1])
    firsts = np.flatnonzero(np.concatenate([[True], ~joined]))
    return place[firsts], source[firsts], np.add.reduceat(size, firsts)


def _read_into(flat: npt.NDArray[np.unsignedinteger], path: Path, place: Ints, source: Ints, size: Ints) -> None:
    """Read long pieces straight to their places: nothing is mapped, nothing is copied twice."""
    view, width = flat.view(np.uint8).data, flat.itemsize
    with open(path, "rb", buffering=0) as file:
        for at, start, many in zip(place.tolist(), source.tolist(), size.tolist(), strict=True):
            file.seek(start * width)
            if file.readinto(view[at * width : (at + many) * width]) != many * width:
                raise OSError(f"{path} is shorter than it was written")


def _map(path: Path, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """A shard's ids, mapped again for each chunk: a mapping that stays would count every page it has touched."""
    if not path.stat().st_size:  # an empty file can't be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # a plain view: np.memmap's own slices cost 2 us more each
