"""Draws the text that a tokenizer is trained on: a bounded, seeded sample of what the model is trained on."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pretrain_cli.config.model import Config
from pretrain_cli.data.choosing.split import choose_split, hold_out, hold_out_amply, same_text
from pretrain_cli.data.cleaning.steps import Cleaner
from pretrain_cli.data.reading.documents import HARMLESS_REASONS, Document, DocumentBatch, bad_record
from pretrain_cli.data.reading.input_files import InputFile, number_kinds
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
    weights that isn't known before the end: more is left out.

    Raises:
        DataError: a bad record or file, where ``on_error`` is "fail".
    """
    drawing = _Drawing(config, files)
    for record in read_all(files, config.data):
        if isinstance(record, DocumentBatch):
            for digest, encoded, text in zip(
                map(xxhash.xxh3_128_digest, record.encoded), record.encoded, record.texts, strict=True
            ):
                if not text.isspace():
                    drawing.take(text, len(encoded))
                    drawing.end(digest, record.path)
        elif isinstance(record, Document):
            drawing.take_part(record)
        elif config.data.on_error == "fail" and record.reason not in HARMLESS_REASONS:
            raise bad_record(record)  # it would end the encoding: say so before a tokenizer is trained
    return drawing.finish()


@dataclass
class _Drawing:
    """The text drawn so far: (document, byte that it starts at there, text)."""

    config: Config
    files: list[InputFile]
    sizes: array[int] = field(default_factory=lambda: array("q", [0]))
    hashes: list[bytes] = field(default_factory=list)
    kinds: array[int] = field(default_factory=lambda: array("q"))
    drawn: list[tuple[int, int, str]] = field(default_factory=list)
    used: int = 0
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def __post_init__(self) -> None:
        self.limit = self.config.tokenizer.sample_bytes
        self.share = min(1.0, self.limit / max(1, sum(max(0, file.size) for file in self.files)))
        self.kind_numbers = dict(zip((file.path for file in self.files), number_kinds(self.files), strict=True))
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
            self.end(self.digest.digest(), record.path)
            self.digest = xxhash.xxh3_128()

    def end(self, digest: bytes, path: str) -> None:
        """The current document, of the file ``path``, is whole."""
        self.hashes.append(digest)
        self.kinds.append(self.kind_numbers.get(path, -1))
        self.sizes.append(0)

    def finish(self) -> TokenizerSample:
        data, sizes = self.config.data, np.array(self.sizes[: len(self.hashes)], np.int64)
        hashes = np.frombuffer(b"".join(self.hashes), ">u8").reshape(-1, 2).astype(np.uint64)
        uncertain = bool(data.cleaning or data.near_dedup or data.sources)
        first = same_text(hashes)
        once = np.flatnonzero(first == np.arange(len(first))) if data.exact_dedup else np.arange(len(first))
        choose, kinds = (hold_out_amply if uncertain else hold_out), np.array(self.kinds, np.int64)
        held = choose(
            sizes[once], hashes[once], kinds[once], data.validation_fraction, choose_split(data.split), data.seed
        )
        # The copies of a text share its fate. A document that a damaged file broke off is the last, and has none.
        first = np.append(first, len(first))
        whole = set(once[held.whole].tolist())
        ends = {int(once[at]): int(sizes[once[at]] - 1.02 * held.tails[at]) for at in np.flatnonzero(held.tails)}
        placed = ((int(first[document]), at, text) for document, at, text in self.drawn)
        drawn = [
            _first_bytes(text, ends[document] - at) if document in ends else text
            for document, at, text in placed
            if document not in whole
        ]
        texts = list(filter(None, map(self._clean, drawn)))
        dropped = Counter() if texts else Counter(filter(None, map(self.cleaner.dropping_step, drawn)))
        return TokenizerSample(texts, sum(len(text.encode()) for text in texts), int(sizes.sum()), dict(dropped))

    def _clean(self, text: str) -> str:
        cleaned, reason = self.cleaner.apply(text)
        return "" if reason else cleaned


def _first_bytes(text: str, size: int) -> str:
    return text.encode()[: max(0, size)].decode(errors="ignore")
