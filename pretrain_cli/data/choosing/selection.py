"""Puts the two splits together by the rules of `split.py`, from the tables of the shards, one at a time.

Of each document, only a byte is in memory: whether it is trained on, held out, or left out and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.choosing.duplicates import drop_repeated, same_sides
from pretrain_cli.data.choosing.near_documents import drop_near
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.split import (
    HELD,
    LEFT_OUT,
    TRAINED,
    Block,
    States,
    choose_split,
    copies,
    hold_out,
)
from pretrain_cli.data.choosing.tail import Cut, cut_tails
from pretrain_cli.data.encoding.encoded import EncodedDocuments, Ints, ShardDocuments
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.tokenizer.load import TokenizerInfo

ASIDE = 255
"""State of a document of which nothing is held out, while that is chosen."""
REASONS = ("duplicate", "near_duplicate", "weight")
"""Why a document is left out after it was encoded; its state is `LEFT_OUT` + the place here."""


@dataclass
class Extent:
    """What one reason leaves out, or a split takes."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    def add(self, sizes: Ints, tokens: Ints) -> None:
        """Some more documents, or parts of them."""
        self.documents += len(sizes)
        self.bytes += int(sizes.sum())
        self.tokens += int(tokens.sum())


@dataclass
class Selection:
    """The splits, and what is left out after encoding.

    Attributes:
        encoded: all documents.
        states: of each: `TRAINED`, `HELD`, or `LEFT_OUT` + the place of its reason [n].
        cuts: place of a document → where its end is cut off to be held out.
        weights: of the sources.
        seed: of the draws.
        split: how text is held out, ``spread``, ``hash`` or ``tail``.
        dropped: reason → what it leaves out.
        train, validation: what the splits take, without copies.
        repeated: copies that the sources' weights ask for.
    """

    encoded: EncodedDocuments
    states: States
    cuts: dict[int, Cut]
    weights: list[float]
    seed: int
    split: str
    dropped: dict[str, Extent] = field(default_factory=dict)
    train: Extent = field(default_factory=Extent)
    validation: Extent = field(default_factory=Extent)
    repeated: Extent = field(default_factory=Extent)

    def ranges(self, split: str) -> Iterator[DocumentRanges]:
        """What a split ("train" or "validation") is made of, in order, the documents of a shard at a time."""
        before = 0
        for shard in self.encoded.shards():
            kept = self.states[shard.span] <= HELD
            yield self.of_shard(shard, before + np.cumsum(kept) - 1, split)
            before += int(kept.sum())

    def copies(self) -> Iterator[DocumentRanges]:
        """The documents that their sources' weights ask for again, with new numbers: training ends with them."""
        if not self.repeated.documents:
            return
        number = int((self.states <= HELD).sum())
        for shard in self.encoded.shards():
            ranges = self.of_shard(shard, np.zeros(len(shard.table), np.int64), "train")
            times = self.times(shard)[self.states[shard.span] == TRAINED]
            again = ranges.where(np.repeat(np.arange(len(ranges)), np.maximum(times - 1, 0)))
            yield replace(again, documents=number + np.arange(len(again)))
            number += len(again)

    def sampled_lengths(self, most: int = 20_000) -> Ints:
        """Tokens of about ``most`` documents that are trained on, or of the parts that are, from all over the text."""
        every = max(1, min(len(self.encoded.counts), self.encoded.many // most))
        found = [
            self.of_shard(shard, np.zeros(len(shard.table), np.int64), "train").tokens
            for shard in self.encoded.shards(every)
        ]
        tokens = np.concatenate(found)
        return tokens[:: max(1, len(tokens) // most)]

    def times(self, shard: ShardDocuments) -> Ints:
        """How often each document of a shard is used."""
        table = shard.table
        return copies(table["source"].astype(np.int64), _hashes(table), self.weights, self.seed)

    def of_shard(self, shard: ShardDocuments, numbers: Ints, split: str) -> DocumentRanges:
        """What a split takes of a shard; ``numbers`` of its documents among the kept ones."""
        own, table = self.states[shard.span], shard.table
        cut = np.array([place - shard.first for place in self.cuts if shard.span.start <= place < shard.span.stop], int)
        trained, held = np.flatnonzero(own == TRAINED), np.union1d(np.flatnonzero(own == HELD), cut)
        places = trained if split == "train" else held
        tokens, sizes, first = table["tokens"][places], table["bytes"][places], np.zeros(len(places), np.int64)
        for at in np.flatnonzero(np.isin(places, cut)).tolist():
            found = self.cuts[shard.first + int(places[at])]
            if split == "train":
                tokens[at], sizes[at] = found.tokens, sizes[at] - found.end_bytes
            else:
                first[at], tokens[at], sizes[at] = found.tokens, tokens[at] - found.tokens, found.end_bytes
        return DocumentRanges(
            documents=numbers[places],
            shards=np.full(len(places), shard.shard, np.int32),
            offsets=shard.offsets[places] + first,
            first=first,
            tokens=tokens,
            sources=table["source"][places],
            sizes=sizes,
            all_tokens=table["tokens"][places],
            all_bytes=table["bytes"][places],
            lost_bytes=table["lost_bytes"][places],
            files=shard.files[places],
            before=np.zeros(len(places), np.int64),
            opens=np.ones(len(places), np.bool_),
            closes=np.ones(len(places), np.bool_),
        )


def select(
    encoded: EncodedDocuments, config: DataConfig, sources: Sources, info: TokenizerInfo, folder: Path
) -> Selection:
    """Choose what goes where.

    Args:
        encoded: all documents, in reading order.
        config: says about duplicates and the split.
        sources: with their weights.
        info: of the tokenizer, for ends that are held out.
        folder: for what doesn't fit in memory.
    """
    states, split = np.zeros(encoded.many, np.uint8), choose_split(config.split)

    def blocks() -> Iterator[Block]:
        for shard in encoded.shards():
            yield Block(shard.first, shard.table["bytes"], _hashes(shard.table), shard.kinds)

    if config.exact_dedup:
        drop_repeated(blocks, states, _state("duplicate"), folder)
    if config.near_dedup:
        drop_near(encoded, states, _state("near_duplicate"), folder)
    chosen = Selection(encoded, states, {}, sources.weights, config.seed, split)
    if any(weight < 1 for weight in sources.weights):
        for shard in encoded.shards():
            own = states[shard.span]
            own[(own == TRAINED) & (chosen.times(shard) == 0)] = _state("weight")
    for shard in encoded.shards() if sources.replay is not None else ():
        own = states[shard.span]
        own[(own == TRAINED) & (shard.table["source"] == sources.replay)] = ASIDE
    tails = hold_out(blocks, states, config.validation_fraction, split, config.seed)
    states[states == ASIDE] = TRAINED
    if not config.exact_dedup and (tails or (states == HELD).any()):
        same_sides(blocks, states, tails, folder)
    chosen.cuts.update(cut_tails(tails, encoded, info))
    _count(chosen)
    return chosen


def _hashes(table: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(table["hash"])


def _state(reason: str) -> int:
    return LEFT_OUT + REASONS.index(reason)


def _count(chosen: Selection) -> None:
    """Add up what the splits take and what is left out."""
    for shard in chosen.encoded.shards():
        own = chosen.states[shard.span]
        for state in np.unique(own[own >= LEFT_OUT]).tolist():
            chosen.dropped.setdefault(REASONS[state - LEFT_OUT], Extent()).add(
                shard.table["bytes"][own == state], shard.table["tokens"][own == state]
            )
        numbers = np.zeros(len(own), np.int64)
        train, validation = (chosen.of_shard(shard, numbers, split) for split in ("train", "validation"))
        chosen.train.add(train.sizes, train.tokens)
        chosen.validation.add(validation.sizes, validation.tokens)
        again = np.maximum(chosen.times(shard)[own == TRAINED] - 1, 0)
        if again.any():
            chosen.repeated.add(np.repeat(train.sizes, again), np.repeat(train.tokens, again))
