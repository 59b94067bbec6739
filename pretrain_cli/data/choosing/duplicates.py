"""Finds documents with the same text by their hashes, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.partitions import Partitions
from pretrain_cli.data.choosing.split import HELD, TRAINED, Blocks, States
from pretrain_cli.data.encoding.encoded import Ints

ENTRY = np.dtype([("place", "<i8"), ("hash", "<u8", 2)])


def drop_repeated(blocks: Blocks, states: States, reason: int, folder: Path) -> None:
    """Documents with the text of an earlier one get ``reason`` in ``states``; ``folder`` is for what is spilled."""
    for places, firsts in same_texts(blocks, states, folder):
        states[places[places != firsts]] = reason


def same_sides(blocks: Blocks, states: States, tails: dict[int, int], folder: Path) -> None:
    """Documents with the same text go to the same side, training, and none gives only its end."""
    for places, firsts in same_texts(blocks, states, folder):
        names, groups, many = np.unique(firsts, return_inverse=True, return_counts=True)
        for place in places[many[groups] > 1].tolist():
            tails.pop(place, None)  # the copy would be trained on
        trained = np.zeros(len(names), bool)
        trained[groups[states[places] == TRAINED]] = True
        back = places[(states[places] == HELD) & trained[groups]]
        states[back] = TRAINED


def same_texts(blocks: Blocks, states: States, folder: Path) -> Iterator[tuple[Ints, Ints]]:
    """(places, the first place with the same text) of documents that aren't left out, a partition at a time."""
    with Partitions(folder, ENTRY, len(states)) as partitions:
        for block in blocks():
            kept = np.flatnonzero(states[block.span] <= HELD)
            entries = np.empty(len(kept), ENTRY)
            entries["place"], entries["hash"] = block.first + kept, block.hashes[kept]
            partitions.add(entries["hash"][:, 1].copy(), entries)
        for entries in partitions:
            yield entries["place"].copy(), entries["place"][same_text(np.ascontiguousarray(entries["hash"]))]


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
