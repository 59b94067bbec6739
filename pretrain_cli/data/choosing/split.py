"""Holds the rules of the splits: which document is a copy, how often one is used, which is held out."""

from __future__ import annotations

from dataclasses import dataclass

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


def same_text(hashes: npt.NDArray[np.uint64]) -> Ints:
    """[n] of hashes [n, 2]: the index of the first with the same hash; O(n log n)."""
    if not len(hashes):
        return np.empty(0, np.int64)
    order = np.argsort(hashes[:, 1])  # by half of each hash: six times as fast, and nearly always enough
    same = hashes[order[1:], 1] == hashes[order[:-1], 1]
    if (hashes[order[1:], 0] != hashes[order[:-1], 0])[same].any():
        order = np.lexsort((hashes[:, 0], hashes[:, 1]))
        same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    firsts = np.empty(len(order), np.int64)
    firsts[order] = np.repeat(np.minimum.reduceat(order, starts), np.diff(np.append(starts, len(order))))
    return firsts


def first_seen(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """[n] of hashes [n, 2]: True at the first of each."""
    return np.asarray(same_text(hashes) == np.arange(len(hashes)))


def copies(sources: Ints, hashes: npt.NDArray[np.uint64], weights: list[float], seed: int) -> Ints:
    """How often each document is used: its source's weight, the fraction drawn by a hash of its text and the seed."""
    weight = np.asarray(weights)[sources]
    at_least = np.floor(weight)
    times: Ints = (at_least + (_draw(hashes, seed + 1) < weight - at_least)).astype(np.int64)
    return times


def _draw(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1) that follow from text and seed alone (splitmix64 of the hash)."""
    with np.errstate(over="ignore"):
        mixed = hashes[:, 1] + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)) / float(1 << 53)


def choose_split(wanted: str) -> str:
    """How text is held out: ``spread``, ``hash`` or ``tail``."""
    return "spread" if wanted == "auto" else wanted


@dataclass(frozen=True)
class HeldOut:
    """What is held out of each document: all of it, or so many bytes of its end.

    Attributes:
        whole: [n].
        tails: bytes [n]; 0 for none.
    """

    whole: npt.NDArray[np.bool_]
    tails: Ints


def hold_out(
    sizes: Ints, hashes: npt.NDArray[np.uint64], kinds: Ints, fraction: float, split: str, seed: int
) -> HeldOut:
    """Choose what is held out. Documents with the same text go to the same side, training.

    Args:
        sizes: bytes of each document [n].
        hashes: of each document's text [n, 2].
        kinds: number of each document's source and kind of file [n].
        fraction: of the bytes to hold out.
        split: ``spread`` takes the end of each large document, and of the others whole ones of each kind, drawn by
            their text. ``tail`` takes the longest run of last documents within ``fraction``; where even the last
            document is more than four times that share, its end. ``hash`` draws each document by its text.
        seed: of the draw.
    """
    whole, tails = np.zeros(len(sizes), bool), np.zeros(len(sizes), np.int64)
    if not fraction or not len(sizes):
        return HeldOut(whole, tails)
    budget = fraction * float(sizes.sum())
    if len(sizes) == 1:
        tails[0] = int(budget)
    elif split == "hash":
        whole = _draw(hashes, seed) < fraction
    elif split == "tail":
        whole, tails = _last(sizes, budget)
    else:
        tails = _ends(sizes, fraction, budget)
        small = np.flatnonzero(tails == 0)
        whole[small] = _of_each_kind(sizes[small], _draw(hashes[small], seed), kinds[small], fraction)
        if not whole.any() and not tails.any():
            whole, tails = _last(sizes, budget)
    if whole.all():
        whole[0] = False
    firsts = same_text(hashes)
    copied = np.bincount(firsts, minlength=len(sizes))[firsts] > 1
    tails[copied] = 0  # the copy would be trained on
    trained = np.zeros(len(sizes), bool)
    trained[firsts[~whole]] = True
    return HeldOut(whole & ~trained[firsts], tails)


def hold_out_amply(
    sizes: Ints, hashes: npt.NDArray[np.uint64], kinds: Ints, fraction: float, split: str, seed: int
) -> HeldOut:
    """What may be held out once cleaning, near duplicates or weights have left out documents that are still here."""
    likely = hold_out(sizes, hashes, kinds, min(0.9, 2 * fraction), split, seed)
    whole = likely.whole
    if split == "spread":
        whole = whole | (_draw(hashes, seed) < 4 * fraction)
    tails = (min(0.9, 2 * fraction) * sizes).astype(np.int64)
    return HeldOut(
        whole, np.where(tails >= LEAST_TAIL_BYTES, tails, likely.tails) if split == "spread" else likely.tails
    )


def _last(sizes: Ints, budget: float) -> tuple[npt.NDArray[np.bool_], Ints]:
    """(whole, tails): the last documents within ``budget``; of one that is far larger its end."""
    whole, tails = np.cumsum(sizes[::-1])[::-1] <= budget, np.zeros(len(sizes), np.int64)
    if not whole.any():
        if sizes[-1] > HELD_OUT_AT_MOST * budget:
            tails[-1] = int(budget)
        else:
            whole[-1] = True
    return whole, tails


def _ends(sizes: Ints, fraction: float, budget: float) -> Ints:
    """Bytes of the end of each document that is too large to be held out whole; 0 of others."""
    tails = (fraction * sizes).astype(np.int64)
    return np.where((sizes > LARGE_SHARE * budget) & (tails >= LEAST_TAIL_BYTES), tails, 0)


def _of_each_kind(sizes: Ints, draws: npt.NDArray[np.float64], kinds: Ints, fraction: float) -> npt.NDArray[np.bool_]:
    """[n]: ``fraction`` of the bytes of each kind; of kinds too small for that, of them together."""
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
        held[rest] = _first_in(sizes[rest], fraction)
    return held


def _first_in(sizes: Ints, fraction: float) -> npt.NDArray[np.bool_]:
    """The first documents that come nearest to ``fraction`` of the bytes."""
    return np.asarray(np.cumsum(sizes) - sizes / 2 <= fraction * float(sizes.sum()))
