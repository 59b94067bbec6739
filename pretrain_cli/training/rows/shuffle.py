"""Computes which row comes at a place of a shuffled epoch, without holding the whole order."""

from __future__ import annotations

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


def _mixed(value: int) -> int:
    """64 well-mixed bits (the finaliser of Steele, Lea and Flood's SplitMix, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31
