"""Holds the rules of the splits: which document is a copy, how often one is used, which is held out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.encoded import Ints

HELD_OUT_AT_MOST = 4.0
"""Times the wanted share that a single last document may have and still be held out whole."""
DRAWN_FROM_DOCUMENTS = 1000
"""With fewer, a draw of 5% would hold out anything from 1 to 10%."""


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


def choose_split(wanted: str, documents: int) -> str:
    """How documents are held out, ``hash`` or ``tail``. `auto`: a draw if there are enough documents for it."""
    return ("hash" if documents >= DRAWN_FROM_DOCUMENTS else "tail") if wanted == "auto" else wanted


def hold_out(
    sizes: Ints, hashes: npt.NDArray[np.uint64], fraction: float, split: str, seed: int
) -> tuple[npt.NDArray[np.bool_], bool]:
    """(held [n], cut): which documents are held out, and whether the tail of the last one is held out instead.

    Documents with the same text go to the same side, training.

    Args:
        sizes: bytes of each document.
        hashes: of each document's text [n, 2].
        fraction: of the bytes to hold out.
        split: ``tail`` takes the longest run of last documents within ``fraction``; where even the last document is
            more than four times that share, its tail. ``hash`` draws each document by its text.
        seed: of the draw.
    """
    held = np.zeros(len(sizes), bool)
    if not fraction or not len(sizes):
        return held, False
    if len(sizes) == 1:
        return held, True
    if split == "hash":
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
