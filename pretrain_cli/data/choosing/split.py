"""Which documents are kept, repeated, and held out? Decided on whole columns, after all documents are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
HELD_OUT_AT_MOST = 4.0
DRAWN_FROM_DOCUMENTS = 1000
"""With fewer, a draw of 5 % would hold out anything from 1 to 10 %."""


@dataclass
class Part:
    """What one split is made of: a range of the ids of some documents, one entry each, in order.

    ``documents``: index among the kept; ``rows``: index in the table of all encoded; ``first``, ``tokens``: the range
    of the document's ids, BOS and EOS not counted; ``sources``.
    """

    documents: Ints
    rows: Ints
    first: Ints
    tokens: Ints
    sources: Ints


def same_text(hashes: npt.NDArray[np.uint64]) -> Ints:
    """[n] of hashes [n, 2]: the index of the first with the same hash; O(n log n)."""
    if not len(hashes):
        return np.empty(0, np.int64)
    order = np.argsort(hashes[:, 1])  # by half of each hash: six times as fast as by both, and nearly always enough
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
    whole = np.floor(weight)
    times: Ints = (whole + (_draw(hashes, seed + 1) < weight - whole)).astype(np.int64)
    return times


def _draw(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """[n] numbers in [0, 1) that follow from text and seed alone (splitmix64 of the hash)."""
    with np.errstate(over="ignore"):
        mixed = hashes[:, 1] + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)) / float(1 << 53)


def choose_split(wanted: str, documents: int) -> str:
    """``hash`` or ``tail``; `auto`: a draw where there are enough documents for it to be even."""
    return ("hash" if documents >= DRAWN_FROM_DOCUMENTS else "tail") if wanted == "auto" else wanted


def hold_out(
    sizes: Ints, hashes: npt.NDArray[np.uint64], fraction: float, way: str, seed: int
) -> tuple[npt.NDArray[np.bool_], bool]:
    """(held [n], cut): which documents are held out whole, and whether the last one has to give its tail instead.

    ``tail``: the longest run of last documents within ``fraction`` of the bytes. Where even the last document is more
    than four times that share, it isn't given up whole. ``hash``: each document by a draw on its text.
    Documents with the same text go to one side, training.
    """
    held = np.zeros(len(sizes), bool)
    if not fraction or not len(sizes):
        return held, False
    if len(sizes) == 1:
        return held, True
    if way == "hash":
        held = _draw(hashes, seed) < fraction
    else:
        budget = fraction * sizes.sum()
        held = np.cumsum(sizes[::-1])[::-1] <= budget
        if not held.any():
            if sizes[-1] > HELD_OUT_AT_MOST * budget:
                return held, True
            held[-1] = True
    if held.all():
        held[0] = False
    firsts = same_text(hashes)
    trained = np.zeros(len(held), bool)
    trained[firsts[~held]] = True
    held &= ~trained[firsts]
    return held, False
