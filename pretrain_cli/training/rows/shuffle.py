"""Computes which row comes at a place of a shuffled epoch, without holding the whole order."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Sequence

ROUNDS = 6
MASK = (1 << 64) - 1


def shuffled(place: int, rows: int, key: int) -> int:
    """The row at ``place`` of the permutation of ``rows`` rows that ``key`` names.

    A Feistel network over the smallest even number of bits that holds all rows (Luby and Rackoff 1988, doi
    10.1137/0217022); places outside are walked on until one lies inside (Black and Rogaway 2002, doi
    10.1007/3-540-45760-7_9), fewer than four times on average.
    """
    half = max(1, ((rows - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    value = place
    while True:
        left, right = value >> half, value & low
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mixed(right + (key * ROUNDS + turn << 32)) & low)
        value = left << half | right
        if value < rows:
            return value


def key_of(seed: int, number: int) -> int:
    """The key of the permutation of this ``number``, an epoch or a stage, in a run of this seed."""
    return seed * 1_000_003 + number


def _mixed(value: int) -> int:
    """64 well-mixed bits (the finaliser of Steele, Lea and Flood's SplitMix, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


class FileWindows:
    """The order of rows that are shuffled within a few files at a time: each epoch draws which files go together.

    Args:
        file_rows: rows of each file.
        at_once: files that are shuffled together.
        seed: of the draws.
    """

    def __init__(self, file_rows: Sequence[int], at_once: int, seed: int) -> None:
        self.file_rows, self.at_once, self.seed = tuple(file_rows), at_once, seed
        self._first_row = list(itertools.accumulate(self.file_rows, initial=0))

    def files(self, window: int) -> tuple[int, ...]:
        """The files of a window, counted on over the epochs."""
        epoch, number = divmod(window, self._each)
        return self._windows(epoch)[number]

    def row(self, epoch: int, place: int) -> tuple[int, int]:
        """(window, row) at a place of an epoch."""
        first_places = self._first_places(epoch)
        number = bisect_right(first_places, place) - 1
        before, rows = first_places[number], first_places[number + 1] - first_places[number]
        within = shuffled(place - before, rows, self._key(epoch) + number)
        for file in self._windows(epoch)[number]:
            if within < self.file_rows[file]:
                return epoch * self._each + number, self._first_row[file] + within
            within -= self.file_rows[file]
        raise AssertionError("a place lies within its window")

    @property
    def _each(self) -> int:
        """Windows of an epoch."""
        return -(-len(self.file_rows) // self.at_once)

    def _key(self, epoch: int) -> int:
        return key_of(self.seed, epoch) * (self._each + 1)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - one order lives as long as its run
    def _windows(self, epoch: int) -> list[tuple[int, ...]]:
        many = len(self.file_rows)
        drawn = [shuffled(place, many, self._key(epoch) + self._each) for place in range(many)]
        return [tuple(drawn[at : at + self.at_once]) for at in range(0, many, self.at_once)]

    @functools.lru_cache(maxsize=4)  # noqa: B019 - as above
    def _first_places(self, epoch: int) -> list[int]:
        """The place in the epoch that each window begins with, and the end of the last."""
        sizes = (sum(self.file_rows[file] for file in files) for files in self._windows(epoch))
        return list(itertools.accumulate(sizes, initial=0))
