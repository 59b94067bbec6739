"""Which tokens go into which row? Each packing is a plan of pieces: it never sees the ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
OPEN_ROWS = 4096


@dataclass(frozen=True)
class Plan:
    """Pieces in the order they fill rows.

    ``counts`` [rows]: pieces in each row. ``documents``, ``starts``, ``lengths`` [pieces]: which tokens of which
    document. Lengths of a row sum to at most the row length; the rest is padding.
    """

    counts: Ints
    documents: Ints
    starts: Ints
    lengths: Ints


class Concat:
    """Documents end to end, cut at the row length (GPT-3's and the tinysolar preset's way).

    Every token is in a row but the last few, fewer than a row: ``tail`` says how many.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._held: list[tuple[int, int, int]] = []
        self._held_tokens = 0

    @property
    def tail(self) -> int:
        return self._held_tokens

    def add(self, documents: Ints, sizes: Ints) -> Plan:
        """The rows that ``documents`` with ``sizes`` tokens complete."""
        held = np.array(self._held, np.int64).reshape(-1, 3)
        ids = np.concatenate([held[:, 0], documents])
        starts = np.concatenate([held[:, 1], np.zeros(len(documents), np.int64)])
        lengths = np.concatenate([held[:, 2], sizes])
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        full = total // self.length * self.length
        # A piece ends at each document's end and at each row's end.
        borders = np.union1d(ends, np.arange(self.length, total + 1, self.length))
        firsts = np.concatenate([[0], borders[:-1]]) if len(borders) else borders
        owner = np.searchsorted(ends, firsts, side="right")
        piece_starts = starts[owner] + firsts - (ends - lengths)[owner]
        piece_lengths = borders - firsts
        done = firsts < full
        self._held = list(
            zip(ids[owner][~done].tolist(), piece_starts[~done].tolist(), piece_lengths[~done].tolist(), strict=True)
        )
        self._held_tokens = total - full
        counts = np.bincount(firsts[done] // self.length, minlength=full // self.length)
        return Plan(counts.astype(np.int64), ids[owner][done], piece_starts[done], piece_lengths[done])

    def finish(self) -> Plan:
        """Nothing: what doesn't fill a row is the tail."""
        none = np.empty(0, np.int64)
        return Plan(none, none, none, none)


class BestFit:
    """Best-fit decreasing over windows of pieces (Ding et al. 2024, arXiv 2404.10830), O(n log L).

    A document longer than a row gives row-long pieces and a rest; each rest goes to the open row with the least room
    that holds it. Rows still open after a window stay open for the next, at most ``OPEN_ROWS`` of them, so memory is
    bounded. No token is dropped.
    """

    tail = 0

    def __init__(self, length: int) -> None:
        self.length = length
        self._open: list[tuple[int, list[tuple[int, int, int]]]] = []

    def add(self, documents: Ints, sizes: Ints) -> Plan:
        whole = sizes // self.length
        rests = sizes - whole * self.length
        owner = np.repeat(documents, whole)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(whole) - whole, whole)
        full = Plan(
            np.ones(len(owner), np.int64), owner, within * self.length, np.full(len(owner), self.length, np.int64)
        )
        has_rest = rests > 0
        self._place(documents[has_rest], (whole * self.length)[has_rest], rests[has_rest])
        done = [row for room, row in self._open if not room]
        left = [(room, row) for room, row in self._open if room]
        if len(left) > OPEN_ROWS:
            left.sort(key=lambda entry: entry[0])
            surplus = len(left) - OPEN_ROWS // 2
            done += [row for _, row in left[:surplus]]
            left = left[surplus:]
        self._open = left
        return _join(full, _plan(done))

    def _place(self, documents: Ints, starts: Ints, lengths: Ints) -> None:
        by_room: dict[int, list[int]] = {}
        rows = [row for _, row in self._open]
        rooms = [room for room, _ in self._open]
        mask = 0  # bit r is set when some open row has room r: the least room that holds a piece is its lowest bit
        for index, room in enumerate(rooms):
            by_room.setdefault(room, []).append(index)
            mask |= 1 << room
        order = np.argsort(-lengths, kind="stable")
        pieces = zip(documents[order].tolist(), starts[order].tolist(), lengths[order].tolist(), strict=True)
        for piece in pieces:
            size = piece[2]
            fitting = mask >> size
            if fitting:
                room = size + (fitting & -fitting).bit_length() - 1
                bucket = by_room[room]
                index = bucket.pop()
                if not bucket:
                    mask ^= 1 << room
                rows[index].append(piece)
            else:
                index, room = len(rows), self.length
                rows.append([piece])
                rooms.append(room)
            room -= size
            rooms[index] = room
            if room:
                by_room.setdefault(room, []).append(index)
                mask |= 1 << room
        self._open = list(zip(rooms, rows, strict=True))

    def finish(self) -> Plan:
        """The rows still open."""
        plan = _plan([row for _, row in self._open])
        self._open = []
        return plan


def _plan(rows: list[list[tuple[int, int, int]]]) -> Plan:
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    return Plan(np.array([len(row) for row in rows], np.int64), pieces[:, 0], pieces[:, 1], pieces[:, 2])


def _join(first: Plan, second: Plan) -> Plan:
    return Plan(
        np.concatenate([first.counts, second.counts]),
        np.concatenate([first.documents, second.documents]),
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.lengths, second.lengths]),
    )


PACKINGS: dict[str, type[Concat] | type[BestFit]] = {"concat": Concat, "best-fit": BestFit}


def windows(sizes: Ints, tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of documents of about ``tokens`` tokens each, at least one document: bounds what is planned at once."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + tokens, side="right")))
        yield start, stop
        start = stop
