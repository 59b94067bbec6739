"""Draws the text that a tokenizer is trained on: a bounded, seeded sample of what the model is trained on."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.split import choose_split, hold_out, same_text
from pretrain_cli.data.cleaning.steps import Cleaner
from pretrain_cli.data.reading.documents import HARMLESS_REASONS, Document, DocumentBatch, bad_record
from pretrain_cli.data.reading.input_files import InputFile
from pretrain_cli.data.reading.read import read_all

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


def draw_sample(files: list[InputFile], config: Config) -> TokenizerSample:
    """About ``tokenizer.sample_bytes`` of text, drawn evenly by a hash of text and seed, none of it held out.

    All documents are read, because which of them are held out depends on all. With cleaning steps, near dedup or
    weights that isn't known before the end: twice the share is left out.

    Raises:
        DataError: a bad record or file, where ``on_error`` is "fail".
    """
    drawing = _Drawing(config, sum(max(0, file.size) for file in files))
    for record in read_all(files, config.data):
        if isinstance(record, DocumentBatch):
            for digest, encoded, text in zip(
                map(xxhash.xxh3_128_digest, record.encoded), record.encoded, record.texts, strict=True
            ):
                if not text.isspace():
                    drawing.take(text, len(encoded))
                    drawing.end(digest)
        elif isinstance(record, Document):
            drawing.take_part(record)
        elif config.data.on_error == "fail" and record.reason not in HARMLESS_REASONS:
            raise bad_record(record)  # it would end the encoding: say so before a tokenizer is trained
    return drawing.finish()


@dataclass
class _Drawing:
    """The text drawn so far: (document, byte that it starts at there, text)."""

    config: Config
    expected_bytes: int
    sizes: array[int] = field(default_factory=lambda: array("q", [0]))
    hashes: list[bytes] = field(default_factory=list)
    drawn: list[tuple[int, int, str]] = field(default_factory=list)
    used: int = 0
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def __post_init__(self) -> None:
        self.limit = self.config.tokenizer.sample_bytes
        self.share = min(1.0, self.limit / max(1, self.expected_bytes))
        self.cleaner = Cleaner(self.config.data.cleaning)

    def take(self, text: str, size: int) -> None:
        """Draw from more text of the current document."""
        at = self.sizes[-1]
        for start in range(0, len(text), DRAWN_CHARACTERS):
            piece = text[start : start + DRAWN_CHARACTERS]
            if self.share == 1 or self._number(piece) < self.share:
                self.drawn.append((len(self.sizes) - 1, at, piece))
                self.used += len(piece)
            at += len(piece.encode()) if len(text) > DRAWN_CHARACTERS else size
        self.sizes[-1] += size
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

    def end(self, digest: bytes) -> None:
        """The current document is whole."""
        self.hashes.append(digest)
        self.sizes.append(0)

    def finish(self) -> TokenizerSample:
        data, sizes = self.config.data, np.array(self.sizes[: len(self.hashes)], np.int64)
        hashes = np.frombuffer(b"".join(self.hashes), ">u8").reshape(-1, 2).astype(np.uint64)
        uncertain = bool(data.cleaning or data.near_dedup or data.sources)
        fraction = min(0.9, data.validation_fraction * (2 if uncertain else 1))
        first = same_text(hashes)
        once = np.flatnonzero(first == np.arange(len(first))) if data.exact_dedup else np.arange(len(first))
        way = choose_split(data.split, len(once))
        held, cut = hold_out(sizes[once], hashes[once], fraction, way, data.seed)
        if uncertain and data.split == "auto" and way == "hash":  # what is dropped later may leave too few for a draw
            held |= hold_out(sizes[once], hashes[once], fraction, "tail", data.seed)[0]
        held_out = np.zeros(len(sizes) + 1, bool)
        held_out[once] = held
        held_out[: len(first)] = held_out[first]  # the copies of a held-out text, too
        last = int(once[-1]) if len(once) else 0
        tail = int(sizes[last] - 1.02 * fraction * sizes[once].sum()) if cut else 0
        drawn = [
            _first_bytes(text, tail - at) if cut and document == last else text
            for document, at, text in self.drawn
            if not held_out[document]
        ]
        texts = list(filter(None, map(self._clean, drawn)))
        dropped = Counter() if texts else Counter(filter(None, map(self.cleaner.dropping_step, drawn)))
        return TokenizerSample(texts, sum(len(text.encode()) for text in texts), int(sizes.sum()), dict(dropped))

    def _clean(self, text: str) -> str:
        cleaned, reason = self.cleaner.apply(text)
        return "" if reason else cleaned


def _first_bytes(text: str, size: int) -> str:
    return text.encode()[: max(0, size)].decode(errors="ignore")
