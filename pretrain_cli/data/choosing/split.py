"""Holds the rules of the splits: how often a document is used, and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.encoded import Ints

HELD_OUT_AT_MOST = 4.0
"""Times the wanted share that a single last document may have and still be held out whole."""
DRAWN_FROM_DOCUMENTS = 1000
"""With fewer, a draw of 5% would hold out anything from 1 to 10%."""
LARGE_SHARE = 0.1
"""A document of more than this share of all that is held out would be much of it: its end is held out instead."""
LEAST_TAIL_BYTES = 200
"""An end shorter than this says little."""


@dataclass(frozen=True)
class Block:
    """Documents that follow each other, in reading order.

    Attributes:
        first: place of the first among all documents.
        sizes: bytes of each [m].
        hashes: of each document's text [m, 2].
        kinds: number of each document's source and kind of file [m].
    """

    first: int
    sizes: Ints
    hashes: npt.NDArray[np.uint64]
    kinds: npt.NDArray[np.integer]

    @property
    def span(self) -> slice:
        """Their places among all documents."""
        return slice(self.first, self.first + len(self.sizes))


Blocks = Callable[[], Iterator[Block]]
"""Gives all documents again and again, a block at a time."""
States = npt.NDArray[np.uint8]
"""[n]: `TRAINED`, `HELD`, or why a document is left out, by its number."""
TRAINED, HELD, LEFT_OUT = 0, 1, 2


def copies(sources: Ints, hashes: npt.NDArray[np.uint64], weights: list[float], seed: int) -> Ints:
    """How often each document is used: its source's weight, the fraction drawn by a hash of its text and the seed."""
    weight = np.asarray(weights)[sources]
    at_least = np.floor(weight)
    times: Ints = (at_least + (_draw(hashes, seed + 1) < weight - at_least)).astype(np.int64)
    return times


def _draw(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1) that follow from text and seed alone."""
    return uniform(hashes[:, 1], seed)


def uniform(keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1) that follow from key and seed alone (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = keys + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)) / float(1 << 53)


def choose_split(wanted: str) -> str:
    """How text is held out: ``spread``, ``hash`` or ``tail``."""
    return "spread" if wanted == "auto" else wanted


def hold_out(blocks: Blocks, states: States, fraction: float, split: str, seed: int) -> dict[int, int]:
    """Choose what is held out: documents become `HELD` in ``states``, and of others the end is held out.

    Two passes over the blocks; of single documents, only those of rare kinds and large ones are remembered. Documents
    with the same text may get different sides: see `duplicates.same_sides`.

    Args:
        blocks: all documents.
        states: of each; those not `TRAINED` are left out.
        fraction: of the bytes to hold out.
        split: ``spread`` takes the end of each large document, and of the others whole ones of each kind, drawn by
            their text. ``tail`` takes the longest run of last documents within ``fraction``; where even the last
            document is more than four times that share, its end. ``hash`` draws each document by its text.
        seed: of the draw.

    Returns:
        Place of a document → bytes of its end to hold out.
    """
    many, total = _totals(blocks, states)
    budget = fraction * float(total)
    if not fraction or not many:
        return {}
    if many == 1:
        return {int(np.flatnonzero(states == TRAINED)[0]): int(budget)}
    tails: dict[int, int] = {}
    if split == "hash":
        for block in blocks():
            own = states[block.span]
            own[(own == TRAINED) & (_draw(block.hashes, seed) < fraction)] = HELD
    elif split == "spread":
        tails = _spread(blocks, states, fraction, budget, seed)
    if split == "tail" or (split == "spread" and not tails and not (states == HELD).any()):
        tails = _last(blocks, states, total, budget)
    if not (states == TRAINED).any():
        states[int(np.argmax(states == HELD))] = TRAINED
    return tails


def _totals(blocks: Blocks, states: States) -> tuple[int, int]:
    """(documents, bytes) that aren't left out."""
    many = total = 0
    for block in blocks():
        kept = states[block.span] == TRAINED
        many, total = many + int(kept.sum()), total + int(block.sizes[kept].sum())
    return many, total


def _last(blocks: Blocks, states: States, total: int, budget: float) -> dict[int, int]:
    """Hold out the last documents within ``budget``; of one that is far larger its end."""
    before, last, last_size = 0, -1, 0
    for block in blocks():
        own = states[block.span]
        kept = np.flatnonzero(own == TRAINED)
        if not len(kept):
            continue
        sizes = block.sizes[kept]
        own[kept[total - before - (np.cumsum(sizes) - sizes) <= budget]] = HELD
        before += int(sizes.sum())
        last, last_size = block.first + int(kept[-1]), int(sizes[-1])
    if states[last] == HELD:
        return {}
    if last_size > HELD_OUT_AT_MOST * budget:
        return {last: int(budget)}
    states[last] = HELD
    return {}


def _spread(blocks: Blocks, states: States, fraction: float, budget: float, seed: int) -> dict[int, int]:
    """Hold out the ends of large documents, and of each kind ``fraction`` of the small ones."""
    tails: dict[int, int] = {}
    rare: dict[int, list[_Small]] = {}
    seen: dict[int, int] = {}
    for block in blocks():
        own = states[block.span]
        ends = np.where(own == TRAINED, _ends(block.sizes, fraction, budget), 0)
        tails |= {block.first + at: int(ends[at]) for at in np.flatnonzero(ends).tolist()}
        small = np.flatnonzero((own == TRAINED) & (ends == 0))
        draws, kinds = _draw(block.hashes[small], seed), block.kinds[small]
        own[small[draws < fraction]] = HELD  # right for the kinds with many documents
        for kind in np.unique(kinds).tolist():
            members = np.flatnonzero(kinds == kind)
            seen[kind] = seen.get(kind, 0) + len(members)
            if seen[kind] >= DRAWN_FROM_DOCUMENTS:
                rare.pop(kind, None)
            else:
                at = small[members]
                rare.setdefault(kind, []).append(
                    _Small(block.first + at, block.sizes[at], draws[members], kinds[members])
                )
    few = [part for parts in rare.values() for part in parts]
    if few:
        places, sizes, draws, kinds = (np.concatenate(parts) for parts in zip(*few, strict=True))
        order = np.argsort(places)
        states[places] = TRAINED
        represented = bool(tails) or bool((states == HELD).any())
        held = _of_each_kind(sizes[order], draws[order], kinds[order], fraction, represented)
        states[places[order]] = np.where(held, HELD, TRAINED)
    return tails


class _Small(NamedTuple):
    """Documents of a kind with few: their places, bytes, draws and kind."""

    places: Ints
    sizes: Ints
    draws: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.integer]


def ample_fraction(fraction: float) -> float:
    """What may be held out once cleaning, near duplicates or weights have left out documents that are still here."""
    return min(0.9, 2 * fraction)


def may_be_held(hashes: npt.NDArray[np.uint64], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """[n]: whether ``spread`` may hold a document out, whatever else is left out."""
    return np.asarray(_draw(hashes, seed) < HELD_OUT_AT_MOST * fraction)


def may_end_early(sizes: Ints, fraction: float) -> Ints:
    """[n]: bytes of each end that ``spread`` may hold out, whatever else is left out; 0 for none."""
    tails = (ample_fraction(fraction) * sizes).astype(np.int64)
    return np.where(tails >= LEAST_TAIL_BYTES, tails, 0)


def _ends(sizes: Ints, fraction: float, budget: float) -> Ints:
    """Bytes of the end of each document that is too large to be held out whole; 0 of others."""
    tails = (fraction * sizes).astype(np.int64)
    return np.where((sizes > LARGE_SHARE * budget) & (tails >= LEAST_TAIL_BYTES), tails, 0)


def _of_each_kind(
    sizes: Ints, draws: npt.NDArray[np.float64], kinds: npt.NDArray[np.integer], fraction: float, represented: bool
) -> npt.NDArray[np.bool_]:
    """[n]: ``fraction`` of the bytes of each kind; of kinds too small for that, of them together.

    Where other text is held out (``represented``, or of another kind), that is at least one document, if it isn't more
    than four times the share: otherwise these kinds would have no part in the figures.
    """
    held = np.zeros(len(sizes), bool)
    order = np.lexsort((draws, kinds))
    names, starts = np.unique(kinds[order], return_index=True)
    without: list[Ints] = []
    for start, end in zip(starts, [*starts[1:], len(order)] if len(names) else [], strict=True):
        members = order[start:end]
        if len(members) >= DRAWN_FROM_DOCUMENTS:  # a document keeps its side when others are added
            held[members] = draws[members] < fraction
            continue
        chosen = _first_in(sizes[members], fraction)
        held[members] = chosen
        if not chosen.any():
            without.append(members)
    if without:
        rest = np.concatenate(without)
        rest = rest[np.argsort(draws[rest], kind="stable")]
        chosen = _first_in(sizes[rest], fraction)
        most = HELD_OUT_AT_MOST * fraction
        fitting = np.flatnonzero((sizes[rest] <= most * float(sizes[rest].sum())) & (draws[rest] < most))
        if not chosen.any() and len(fitting) and (represented or held.any()):
            chosen[fitting[0]] = True
        held[rest] = chosen
    return held


def _first_in(sizes: Ints, fraction: float) -> npt.NDArray[np.bool_]:
    """The first documents that come nearest to ``fraction`` of the bytes."""
    return np.asarray(np.cumsum(sizes) - sizes / 2 <= fraction * float(sizes.sum()))
