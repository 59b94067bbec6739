"""Draws the text that a tokenizer is trained on: a bounded, seeded sample of what the model is trained on."""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import xxhash

from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.duplicates import drop_repeated, same_sides, same_texts
from pretrain_cli.data.choosing.split import (
    HELD,
    LEFT_OUT,
    Block,
    ample_fraction,
    choose_split,
    hold_out,
    may_be_held,
    may_end_early,
)
from pretrain_cli.data.cleaning.steps import Cleaner
from pretrain_cli.data.reading.bad_records import BadRecords, Strictness
from pretrain_cli.data.reading.documents import HARMLESS_REASONS, Document, DocumentBatch, Record, bad_record
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.read import read_all
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of, exact

SEEN_AT_ONCE = 1 << 16
DRAWN_CHARACTERS = 1 << 16
"""A long document is drawn in stretches of this length."""


@dataclass
class TokenizerSample:
    """Text to train a tokenizer on.

    ``bytes``: of ``texts``; ``total_bytes``: of all the text, held out or not; ``dropped``: where no text is left,
    how many texts each cleaning step dropped.
    """

    texts: list[str]
    bytes: int
    total_bytes: int
    dropped: dict[str, int] = field(default_factory=dict)


def draw_sample(files: FileTable, config: Config, folder: Path) -> TokenizerSample:
    """About ``tokenizer.sample_bytes`` of text, drawn evenly by a hash of text and seed, none of it held out.

    All documents are read, because which of them are held out depends on all. With cleaning steps, near dedup or
    weights that isn't known before the end: more is left out. ``folder`` is for what doesn't fit in memory.

    Raises:
        DataError: a bad record or file, where ``data.on_error`` makes it an error.
    """
    strict, bad = Strictness.of(config.data.on_error, len(files)), BadRecords()
    with _Seen(folder) as seen:
        drawing = _Drawing(config, files.total_bytes, seen, folder)
        for file, kind in zip(files, files.kind_numbers().tolist(), strict=True):
            drawing.kind = kind
            for record in read_all(file, config.data, strict=strict.files):
                _take(record, drawing, strict, bad)
        if config.data.on_error == "auto":
            bad.documents = len(seen)
            bad.check()
        return drawing.finish()


def _take(record: Record, drawing: _Drawing, strict: Strictness, bad: BadRecords) -> None:
    if isinstance(record, DocumentBatch):
        for digest, encoded, text in zip(
            map(xxhash.xxh3_128_digest, record.encoded), record.encoded, record.texts, strict=True
        ):
            if not text.isspace():
                drawing.take(text, len(encoded))
                drawing.end(digest)
    elif isinstance(record, Document):
        drawing.take_part(record)
    elif strict.records and record.reason not in HARMLESS_REASONS:
        raise bad_record(record)  # it would end the encoding: say so before a tokenizer is trained
    else:
        drawing.break_off()
        bad.add(record)


SEEN = np.dtype([("size", "<i8"), ("hash", "<u8", 2), ("kind", "<i4")])


class _Seen:
    """All documents that were read, on disk: bytes, hash and kind of each."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._held: list[tuple[int, bytes, int]] = []
        self._many = 0

    def __enter__(self) -> _Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._many

    def add(self, size: int, digest: bytes, kind: int) -> None:
        self._held.append((size, digest, kind))
        self._many += 1
        if len(self._held) >= SEEN_AT_ONCE:
            self._write()

    def _write(self) -> None:
        table = np.empty(len(self._held), SEEN)
        sizes, digests, kinds = zip(*self._held, strict=True) if self._held else ((), (), ())
        table["size"], table["kind"] = sizes, kinds
        table["hash"] = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
        self._file.write(table.tobytes())
        self._held = []

    def blocks(self) -> Iterator[Block]:
        """All of them, some at a time."""
        for first in range(0, self._many, SEEN_AT_ONCE):
            table = self._read(first, SEEN_AT_ONCE)
            yield Block(first, table["size"], np.ascontiguousarray(table["hash"]), table["kind"])

    def one(self, place: int) -> npt.NDArray[np.void]:
        """[1]: one of them."""
        return self._read(place, 1)

    def _read(self, first: int, many: int) -> npt.NDArray[np.void]:
        if self._held:
            self._file.seek(0, io.SEEK_END)
            self._write()
        self._file.seek(first * SEEN.itemsize)
        return np.frombuffer(self._file.read(many * SEEN.itemsize), SEEN)


@dataclass
class _Drawing:
    """The text drawn so far: (document, byte that it starts at there, text)."""

    config: Config
    stored_bytes: int
    seen: _Seen
    folder: Path
    size: int = 0
    total_bytes: int = 0
    kind: int = -1
    drawn: list[tuple[int, int, str]] = field(default_factory=list)
    used: int = 0
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def __post_init__(self) -> None:
        self.limit = self.config.tokenizer.sample_bytes
        self.share = min(1.0, self.limit / max(1, self.stored_bytes))
        self.cleaner = Cleaner(self.config.data.cleaning)

    def take(self, text: str, size: int) -> None:
        """Draw from more text of the current document."""
        at = self.size
        for start in range(0, len(text), DRAWN_CHARACTERS):
            piece = text[start : start + DRAWN_CHARACTERS]
            if self.share == 1 or self._number(piece) < self.share:
                self.drawn.append((len(self.seen), at, piece))
                self.used += len(piece)
            at += len(piece.encode()) if len(text) > DRAWN_CHARACTERS else size
        self.size += size
        if self.used > 1.2 * self.limit:  # compressed input is larger than it is on disk
            self._thin()

    def _number(self, text: str) -> float:
        return float(xxhash.xxh3_64_intdigest(text[:4096].encode(), self.config.data.seed) / 2**64)

    def _thin(self) -> None:
        """Halve the share, so that what was drawn stays an even sample of what was read."""
        self.share /= 2
        self.drawn = [entry for entry in self.drawn if self._number(entry[2]) < self.share]
        self.used = sum(len(text) for _, _, text in self.drawn)

    def take_part(self, record: Document) -> None:
        encoded = record.text.encode()
        self.digest.update(encoded)
        self.take(record.text, len(encoded))
        if record.final:
            self.end(self.digest.digest())
            self.digest = xxhash.xxh3_128()

    def break_off(self) -> None:
        """What follows is no part of the document that was begun."""
        self.digest = xxhash.xxh3_128()
        self.size = 0

    def end(self, digest: bytes) -> None:
        """The current document is whole."""
        self.seen.add(self.size, digest, self.kind)
        self.total_bytes += self.size
        self.size = 0

    def finish(self) -> TokenizerSample:
        """The text that isn't held out, cleaned."""
        firsts, keeps = self._firsts(), self._what_stays()
        drawn: list[str] = []
        for document, at, text in self.drawn:
            first = firsts.get(document, document)  # the copies of a text share its fate
            # A document that a damaged file broke off is the last, and has none.
            end = keeps(first) if first < len(self.seen) else None
            if end is None or end > 0:
                drawn.append(text if end is None else _first_bytes(text, end - at))
        texts = list(filter(None, map(self._clean, drawn)))
        dropped = Counter() if texts else Counter(filter(None, map(self.cleaner.dropping_step, drawn)))
        return TokenizerSample(texts, sum(len(text.encode()) for text in texts), self.total_bytes, dict(dropped))

    def _firsts(self) -> dict[int, int]:
        """Of the drawn documents that repeat another one: the first with that text."""
        drawn = np.unique(np.array([document for document, _, _ in self.drawn], np.int64))
        states, found = np.zeros(len(self.seen), np.uint8), dict[int, int]()
        for places, firsts in same_texts(self.seen.blocks, states, self.folder):
            copies = np.flatnonzero((places != firsts) & np.isin(places, drawn))
            found |= dict(zip(places[copies].tolist(), firsts[copies].tolist(), strict=True))
        return found

    def _what_stays(self) -> Callable[[int], int | None]:
        """A function of a document: its bytes that stay for training, 0 for none, None for all."""
        data, states = self.config.data, np.zeros(len(self.seen), np.uint8)
        split, spread = choose_split(data.split), choose_split(data.split) == "spread"
        if data.exact_dedup:
            drop_repeated(self.seen.blocks, states, LEFT_OUT, self.folder)
        # With cleaning steps, near dedup or weights, more will be left out than is known here.
        uncertain = bool(data.cleaning or data.near_dedup or data.sources)
        fraction = ample_fraction(data.validation_fraction) if uncertain else data.validation_fraction
        tails = hold_out(self.seen.blocks, states, fraction, split, data.seed)
        if not data.exact_dedup:
            same_sides(self.seen.blocks, states, tails, self.folder)

        def stays(place: int) -> int | None:
            own = self.seen.one(place)
            tail = tails.get(place, 0)
            held = states[place] == HELD
            if uncertain and spread and data.validation_fraction:
                held = held or may_be_held(own["hash"], data.validation_fraction, data.seed)[0]
                tail = int(may_end_early(own["size"], data.validation_fraction)[0]) or tail
            return 0 if held else int(own["size"][0] - 1.02 * tail) if tail else None

        return stays

    def _clean(self, text: str) -> str:
        cleaned, reason = self.cleaner.apply(text)
        return "" if reason else cleaned


def nothing_left(sample: TokenizerSample) -> DataError:
    """The error for a ``sample`` without a text."""
    if not sample.dropped:
        return DataError("No text is left to train a tokenizer on.", "Give more text.")
    steps = ", ".join(f"{name} {exact(number)}" for name, number in sample.dropped.items())
    total = count_of(sum(sample.dropped.values()), "text")
    return DataError(f"No text is left: cleaning drops all {total} ({steps}).", "Leave that step out of data.cleaning.")


def _first_bytes(text: str, size: int) -> str:
    return text.encode()[: max(0, size)].decode(errors="ignore")
