"""Leaves out documents that nearly repeat an earlier one, with their bands sorted on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.partitions import Partitions
from pretrain_cli.data.choosing.split import TRAINED, States
from pretrain_cli.data.cleaning.near_duplicates import BANDS, PERMUTATIONS, THRESHOLD, Signatures
from pretrain_cli.data.encoding.encoded import EncodedDocuments

KEYED = np.dtype([("key", "<u8"), ("place", "<i8")])
MEMBER = np.dtype([("place", "<i8"), ("group", "<i8")])
WIDTH = PERMUTATIONS // BANDS


def drop_near(encoded: EncodedDocuments, states: States, reason: int, folder: Path) -> None:
    """Documents like an earlier one that stays (estimated Jaccard of 0.8 or more) get ``reason`` in ``states``.

    Candidates share one of 16 bands of 8 values. The bands are sorted on disk by partitions; only a number for each
    group of documents that share a band is held, in a file that the system maps.
    """
    with Partitions(folder, MEMBER, encoded.many) as members:
        groups = _shared_bands(encoded, states, members, folder)
        if groups:
            _compare(encoded, states, members, groups, reason, folder)


def _shared_bands(encoded: EncodedDocuments, states: States, members: Partitions, folder: Path) -> int:
    """Give ``members`` the documents of each band that several have, by place; the number of such bands."""
    groups = 0
    with Partitions(folder, KEYED, BANDS * encoded.many) as bands:
        for shard in encoded.shards():
            kept = np.flatnonzero(states[shard.span] == TRAINED)
            signatures = encoded.signatures(shard.shard)[kept]
            for band in range(BANDS):
                entries = np.empty(len(kept), KEYED)
                entries["place"] = shard.first + kept
                entries["key"] = _keys(signatures[:, band * WIDTH : (band + 1) * WIDTH], band)
                bands.add(entries["key"].copy(), entries)
        for entries in bands:
            _, inverse, many = np.unique(entries["key"], return_inverse=True, return_counts=True)
            shared = many > 1
            numbers = groups + np.cumsum(shared) - 1
            chosen = np.flatnonzero(shared[inverse])
            found = np.empty(len(chosen), MEMBER)
            found["place"], found["group"] = entries["place"][chosen], numbers[inverse[chosen]]
            members.add(_spread(found["place"], encoded.many), found)
            groups += int(shared.sum())
    return groups


def _keys(values: Signatures, band: int) -> npt.NDArray[np.uint64]:
    """[n]: a number for each row of ``values`` [n, 8]; two rows that differ hardly ever have the same."""
    key = np.full(len(values), band + 1, np.uint64)
    with np.errstate(over="ignore"):
        for column in values.T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        key *= np.uint64(0xBF58476D1CE4E5B9)
    return key ^ (key >> np.uint64(32))


def _spread(places: npt.NDArray[np.int64], many: int) -> npt.NDArray[np.uint64]:
    """Keys whose partitions follow each other as the places do."""
    return (places.astype(np.float64) / many * 2.0**63).astype(np.uint64) * np.uint64(2)


def _compare(
    encoded: EncodedDocuments, states: States, members: Partitions, groups: int, reason: int, folder: Path
) -> None:
    """Go through the candidates in reading order: each is compared with the first of each of its groups that stays."""
    signatures = _Signatures(encoded)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(groups * 8)
        firsts: Any = np.memmap(file, np.int64, "r+", shape=(groups,))  # place + 1; 0: none yet
        for place, own in _in_order(members):
            others = np.unique(firsts[own])
            others = others[others > 0] - 1
            if len(others) and _is_like(signatures, place, others):
                states[place] = reason
            else:
                free = own[firsts[own] == 0]
                firsts[free] = place + 1
        del firsts


def _in_order(members: Partitions) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(place, groups) of each candidate."""
    for entries in members:
        order = np.argsort(entries["place"], kind="stable")
        places, starts = np.unique(entries["place"][order], return_index=True)
        groups = entries["group"][order]
        yield from zip(places.tolist(), np.split(groups, starts[1:]), strict=True)


def _is_like(signatures: _Signatures, place: int, others: npt.NDArray[np.int64]) -> bool:
    own = signatures.of(place)
    return any(float((signatures.of(other) == own).mean()) >= THRESHOLD for other in others.tolist())


class _Signatures:
    """Finds the signature of a document by its place, in the shards' files."""

    def __init__(self, encoded: EncodedDocuments) -> None:
        self._encoded = encoded
        self._ends = np.cumsum([count.kept_documents for count in encoded.counts])
        self._opened: dict[int, Signatures] = {}

    def of(self, place: int) -> Signatures:
        shard = int(np.searchsorted(self._ends, place, side="right"))
        if shard not in self._opened:
            if len(self._opened) >= 64:  # a mapping counts every page that it has touched
                self._opened.pop(next(iter(self._opened)))
            self._opened[shard] = self._encoded.signatures(shard)
        before = int(self._ends[shard - 1]) if shard else 0
        return np.asarray(self._opened[shard][place - before])
