"""Moves the middles of training text behind its ends, so that a model learns to fill in a middle (arXiv 2207.14255)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pretrain_cli.config.model import Config, DataConfig
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.split import uniform
from pretrain_cli.data.encoding.encoded import EncodedDocuments, Ints
from pretrain_cli.data.encoding.encoder import Encoder, EncoderSettings
from pretrain_cli.data.encoding.vocabulary_bytes import token_contents
from pretrain_cli.data.rows.layout import RowSettings, choose_rows
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import count_of, exact
from pretrain_cli.tokenizer.load import TokenizerInfo, shared_tokenizer
from pretrain_cli.tokenizer.middles import MiddleTokens, need_middle_tokens

CONTROL_TOKENS = 3
SLACK = 6
"""Tokens that a stretch may grow by where words are cut. One that grows by more than fits a row stays as it is."""
LEAST_ROOM = 16
"""Tokens of text that a row must hold, for a middle in it to make sense; and of a stretch, to be rearranged."""
AT_ONCE = 1024
"""Stretches that are encoded together."""


@dataclass(frozen=True)
class _Stretches:
    """A shard's ranges, cut into what fits a row: one entry a stretch, in order.

    ``owner``: place of its range; ``place``: its number in the range; ``first``, ``size``: its tokens in the range;
    ``ends``: it is the last of its range; ``drawn`` [4, n]: numbers in [0, 1) that decide what becomes of it.
    """

    owner: Ints
    place: Ints
    first: Ints
    size: Ints
    ends: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.float64]


def check_middles(config: Config, info: TokenizerInfo) -> MiddleTokens | None:
    """The control tokens that rearranged text gets; None where none is asked for.

    Raises:
        UsageError: the tokenizer has none, no token would end a middle, or the rows are too short for three parts.
    """
    if not config.data.fim_rate:
        return None
    tokens = need_middle_tokens(shared_tokenizer(info.file), config.tokenizer.path or config.model.base)
    rows = choose_rows(config, info, lambda _: None)
    if rows.eos is None:
        raise UsageError(
            "data.fim_rate needs an EOS token after each middle: otherwise a model never learns where one ends.",
            "Leave data.add_eos on, and take a tokenizer that has an EOS token.",
        )
    if rows.sequence_length < (least := LEAST_ROOM + CONTROL_TOKENS + SLACK + rows.border_tokens):
        raise UsageError(
            f"Rows of {rows.sequence_length} tokens are too short for data.fim_rate: it takes {least}.",
            f"Set --sequence-length {max(128, least)}",
        )
    return tokens


class Middles:
    """Rearranges stretches of text, each with the probability ``data.fim_rate``, half of them with the suffix first.

    A stretch is as long as fits a row with its control tokens (the paper's context level), between two characters:
    only a middle that is in one row with both its ends can be learned. It is cut at two characters that are drawn
    evenly, and its parts are encoded anew, as they are when somebody asks for a middle. All follows from the seed and
    the document's number, so that workers and shards make no difference. In reading order, the parts give the text
    back, byte for byte; a stretch of which that isn't true stays as it is.

    Args:
        ids_file: names the file with a shard's ids.
        number: that no shard has: of the ids made here.
        rows: what shapes the rows.
        tokens: control tokens.
        encoder: of the text.
        rate: share of the stretches.
        seed: of the draws.
        file: for the ids made here.
    """

    def __init__(
        self,
        ids_file: Callable[[int], Path],
        number: int,
        rows: RowSettings,
        tokens: MiddleTokens,
        encoder: Encoder,
        rate: float,
        seed: int,
        file: Path,
    ) -> None:
        self._ids_file, self.number, self.file = ids_file, number, file
        file.unlink(missing_ok=True)
        self.rows, self.tokens, self.encoder, self.rate, self.seed = rows, tokens, encoder, rate, seed
        self.room = rows.sequence_length - rows.border_tokens - CONTROL_TOKENS - SLACK
        self.stretches = self.moved = self.added = 0
        self._contents = token_contents(encoder.settings.file)
        self._inside = np.array([content[:1] != b"" and content[0] & 0xC0 == 0x80 for content in self._contents])
        self._skipped = len(encoder.encode([tokens.anchor])[0])

    def ids_file(self, shard: int) -> Path:
        """The file with a shard's ids, or with those made here."""
        return self.file if shard == self.number else self._ids_file(shard)

    @property
    def told(self) -> str:
        """How much was rearranged, in words."""
        of_all = count_of(self.stretches, "stretch", "stretches")
        return f"The middle of {exact(self.moved)} of {of_all} of text is moved behind its ends."

    def rearranged(self, ranges: Iterable[DocumentRanges]) -> Iterator[DocumentRanges]:
        """``ranges``, those of one shard at a time, with each stretch that is rearranged as a range of its own."""
        with open(self.file, "ab", buffering=0) as sink:
            for shard in ranges:
                yield self._of_shard(shard, sink) if len(shard) else shard

    def _of_shard(self, ranges: DocumentRanges, sink: BinaryIO) -> DocumentRanges:
        ids = np.memmap(self.ids_file(int(ranges.shards[0])), self.rows.dtype, "r")
        cut = self._cut(ranges, ids)
        lengths, places = self._move(ranges, ids, cut, sink)
        moved = lengths > 0
        firsts = np.flatnonzero(moved | np.append(True, moved[:-1]) | (cut.place == 0))
        lasts = np.append(firsts[1:], len(moved)) - 1
        own, moved = ranges.where(cut.owner[firsts]), moved[firsts]
        opens = cut.place[firsts] == 0
        made = replace(
            own,
            shards=np.where(moved, self.number, own.shards).astype(np.int32),
            offsets=np.where(moved, places[firsts], own.offsets + cut.first[firsts]),
            first=own.first + cut.first[firsts],
            tokens=np.where(moved, lengths[firsts], np.add.reduceat(cut.size, firsts)),
            opens=moved | opens,
            closes=moved | cut.ends[lasts],
        )
        sizes = made.tokens + self.rows.marks(made)
        before, starts = np.cumsum(sizes) - sizes, np.flatnonzero(opens)
        return replace(made, before=before - np.repeat(before[starts], np.diff(np.append(starts, len(made)))))

    def _cut(self, ranges: DocumentRanges, ids: npt.NDArray[np.unsignedinteger]) -> _Stretches:
        counts = np.maximum(1, -(-ranges.tokens // self.room))
        owner = np.repeat(np.arange(len(ranges)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = place * self.room
        for _ in range(3):  # a character has four bytes at most
            first -= (place > 0) & self._inside[ids[np.minimum(ranges.offsets[owner] + first, len(ids) - 1)]]
        ends = np.append(place[1:] == 0, True)
        size = np.where(ends, ranges.tokens[owner], np.append(first[1:], 0)) - first
        keys = (ranges.documents[owner].astype(np.uint64) << np.uint64(32)) + place.astype(np.uint64)
        drawn = np.stack([uniform(keys, self.seed + 2 + number) for number in range(4)])
        self.stretches += len(owner)
        return _Stretches(owner, place, first, size, ends, drawn)

    def _move(
        self, ranges: DocumentRanges, ids: npt.NDArray[np.unsignedinteger], cut: _Stretches, sink: BinaryIO
    ) -> tuple[Ints, Ints]:
        """(tokens of each stretch once it is rearranged, 0 where it isn't; where they begin in the file)."""
        lengths, places = np.zeros(len(cut.owner), np.int64), np.zeros(len(cut.owner), np.int64)
        chosen = np.flatnonzero((cut.drawn[0] < self.rate) & (cut.size >= LEAST_ROOM))
        width = np.dtype(self.rows.dtype).itemsize
        for at in range(0, len(chosen), AT_ONCE):
            batch = chosen[at : at + AT_ONCE]
            starts = ranges.offsets[cut.owner[batch]] + cut.first[batch]
            texts = [self._text(ids[start : start + size]) for start, size in zip(starts, cut.size[batch], strict=True)]
            known = [(int(place), text) for place, text in zip(batch, texts, strict=True) if text]
            for place, new in self._encoded(known, cut.drawn):
                lengths[place], places[place] = len(new), sink.tell() // width
                sink.write(np.array(new, self.rows.dtype).data)
                self.moved += 1
                self.added += len(new) - int(cut.size[place])
        return lengths, places

    def _text(self, ids: npt.NDArray[np.unsignedinteger]) -> str:
        """The text of ``ids``; "" where they hold a control token, or bytes that are no text."""
        parts = [self._contents[index] for index in ids.tolist()]
        try:
            return b"".join(parts).decode() if all(parts) else ""
        except UnicodeDecodeError:
            return ""

    def _encoded(self, texts: list[tuple[int, str]], drawn: npt.NDArray[np.float64]) -> Iterator[tuple[int, list[int]]]:
        """(stretch, ids) of those among ``texts`` that give their text back and fit a row."""
        parts: list[str] = []
        for place, text in texts:
            low, high = sorted((drawn[2:, place] * (len(text) + 1)).astype(int).tolist())
            parts += [text[:low], text[low:high], text[high:]]
        ids, offsets = self.encoder.encode([self.tokens.anchor + part for part in parts])
        pieces = [ids[start + self._skipped : stop].tolist() for start, stop in itertools.pairwise(offsets.tolist())]
        most = self.rows.sequence_length - self.rows.border_tokens
        for at, (place, text) in enumerate(texts):
            before, middle, after = pieces[3 * at : 3 * at + 3]
            whole = b"".join(self._contents[index] for index in (*before, *middle, *after))
            new = self.tokens.arranged(before, middle, after, suffix_first=bool(drawn[1, place] < 0.5))
            if whole == text.encode() and len(new) <= most:
                yield place, new


def open_middles(
    data: DataConfig,
    encoded: EncodedDocuments,
    tokens: MiddleTokens | None,
    settings: EncoderSettings,
    rows: RowSettings,
    work: Path,
) -> Middles | None:
    """What rearranges the encoded text, with its file in the folder ``work``; None without control ``tokens``."""
    if tokens is None:
        return None
    encoder, number = Encoder(settings, counts_lost=False), len(encoded.counts)
    file = work / "middles.ids"
    return Middles(encoded.ids_file, number, rows, tokens, encoder, data.fim_rate, data.seed, file)
