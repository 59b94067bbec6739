"""Plans which tokens go into which row: each packing places pieces of documents and never sees the ids.

A packing gets the documents in groups, a very long one in several, and gives back the rows that are complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
OPEN_ROWS = 4096
GROUP_TOKENS = 1 << 21
"""What is planned at once, or so many rows as make sense where they are long."""


@dataclass(frozen=True)
class DocumentGroup:
    """Documents, or a stretch of a long one, to be packed: which, from which of its tokens on, and how many tokens."""

    documents: Ints
    starts: Ints
    sizes: Ints


@dataclass(frozen=True)
class RowPlan:
    """Pieces in the order they fill rows.

    ``counts`` [rows]: pieces in each row. ``documents``, ``starts``, ``lengths`` [pieces]: which tokens of which
    document. Lengths of a row sum to at most the row length; the rest is padding.
    """

    counts: Ints
    documents: Ints
    starts: Ints
    lengths: Ints


class Concat:
    """Documents end to end, cut at the row length (as GPT-3 and the preset tinysolar do).

    Every token is in a row, except the last ones that don't fill a row: ``tail`` says how many.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._held: list[tuple[int, int, int]] = []
        self._held_tokens = 0

    @property
    def tail(self) -> int:
        return self._held_tokens

    def add(self, group: DocumentGroup) -> RowPlan:
        """The rows that ``group`` completes."""
        held = np.array(self._held, np.int64).reshape(-1, 3)
        ids = np.concatenate([held[:, 0], group.documents])
        starts = np.concatenate([held[:, 1], group.starts])
        lengths = np.concatenate([held[:, 2], group.sizes])
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        full = total // self.length * self.length
        # A piece ends where a document or a row ends, but not between two stretches of a document.
        documents_end = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
        borders = np.union1d(ends[documents_end], np.arange(self.length, total + 1, self.length))
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
        return RowPlan(counts.astype(np.int64), ids[owner][done], piece_starts[done], piece_lengths[done])

    def open_documents(self) -> Ints:
        """The documents of which something waits for a row."""
        return np.array([document for document, _, _ in self._held], np.int64)

    def finish(self) -> RowPlan:
        """An empty plan: what doesn't fill a row is the tail."""
        none = np.empty(0, np.int64)
        return RowPlan(none, none, none, none)


class BestFit:
    """Best-fit decreasing over groups of documents (Ding et al. 2024, arXiv 2404.10830), O(n log L).

    A document longer than a row gives row-long pieces and a rest; each rest goes to the open row with the least room
    that holds it. Rows still open after a group stay open for the next, at most ``OPEN_ROWS`` of them, so memory is
    bounded. No token is dropped.
    """

    tail = 0

    def __init__(self, length: int) -> None:
        self.length = length
        none = np.empty(0, np.int64)
        self._rooms = none
        self._pieces = Pieces(none, none, none, none)

    def add(self, group: DocumentGroup) -> RowPlan:
        """The rows that ``group`` fills, and those that had to close."""
        documents, sizes = group.documents, group.sizes
        full_rows = sizes // self.length
        rests = sizes - full_rows * self.length
        owner = np.repeat(documents, full_rows)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(full_rows) - full_rows, full_rows)
        starts = np.repeat(group.starts, full_rows) + within * self.length
        full = RowPlan(np.ones(len(owner), np.int64), owner, starts, np.full(len(owner), self.length, np.int64))
        order = np.argsort(-rests, kind="stable")[: np.count_nonzero(rests)]
        rows, rooms = best_fit(self._rooms, rests[order], self.length)
        new = Pieces(rows, documents[order], (group.starts + full_rows * self.length)[order], rests[order])
        return _join(full, self._close(self._pieces.and_then(new), rooms))

    def _close(self, pieces: Pieces, rooms: Ints) -> RowPlan:
        """The plan of the full rows and, where too many are open, of the fullest; the others are kept."""
        closed = rooms == 0
        if len(rooms) - np.count_nonzero(closed) > OPEN_ROWS:
            by_room = np.argsort(rooms, kind="stable")
            closed[by_room[: len(rooms) - OPEN_ROWS // 2]] = True
        stays = ~closed[pieces.rows]
        renumbered = np.cumsum(~closed) - 1
        self._rooms = rooms[~closed]
        kept = pieces.where(stays)
        self._pieces = Pieces(renumbered[kept.rows], kept.documents, kept.starts, kept.lengths)
        return pieces.where(~stays).plan()

    def open_documents(self) -> Ints:
        """The documents of which something is in an open row."""
        return self._pieces.documents

    def finish(self) -> RowPlan:
        """The rows still open."""
        plan = self._pieces.plan()
        none = np.empty(0, np.int64)
        self._rooms, self._pieces = none, Pieces(none, none, none, none)
        return plan


@dataclass(frozen=True)
class Pieces:
    """Pieces that have a row, one entry each, in the order they were placed."""

    rows: Ints
    documents: Ints
    starts: Ints
    lengths: Ints

    def where(self, chosen: npt.NDArray[np.bool_] | Ints) -> Pieces:
        return Pieces(self.rows[chosen], self.documents[chosen], self.starts[chosen], self.lengths[chosen])

    def and_then(self, other: Pieces) -> Pieces:
        return Pieces(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in vars(self)))

    def plan(self) -> RowPlan:
        """These pieces alone, row by row."""
        ordered = self.where(np.argsort(self.rows, kind="stable"))
        counts = np.unique(ordered.rows, return_counts=True)[1]
        return RowPlan(counts.astype(np.int64), ordered.documents, ordered.starts, ordered.lengths)


def best_fit(rooms: Ints, sizes: Ints, length: int) -> tuple[Ints, Ints]:
    """The row of each piece by best fit, and the room left in all rows.

    ``rooms``: of the open rows; ``sizes``: of the pieces, descending. Pieces of one size are placed together: a row
    with the least room r that holds size s takes r // s of them, as r - s is then the least that does.
    """
    by_room: dict[int, list[int]] = {}
    mask = 0  # bit r is set when some open row has room r: the least room that holds a piece is its lowest bit
    for row, room in enumerate(rooms.tolist()):
        by_room.setdefault(room, []).append(row)
        mask |= 1 << room
    borders = np.flatnonzero(np.diff(sizes, prepend=-1, append=-1)).tolist()
    found = np.empty(len(sizes), np.int64)
    many_rows = len(rooms)
    left = dict(enumerate(rooms.tolist()))
    for at, stop in itertools.pairwise(borders):
        size = int(sizes[at])
        while at < stop:
            fitting = mask >> size
            room = size + (fitting & -fitting).bit_length() - 1 if fitting else length
            each = room // size
            need = -(-(stop - at) // each)
            if fitting:
                bucket = by_room[room]
                rows = bucket[-need:][::-1]
                del bucket[-need:]
                if not bucket:
                    mask ^= 1 << room
            else:
                rows = list(range(many_rows, many_rows + need))
                many_rows += need
            taken = np.repeat(rows, each)[: stop - at]
            found[at : at + len(taken)] = taken
            last = len(taken) - (len(rows) - 1) * each
            for after, own in ((room - each * size, rows[:-1]), (room - last * size, rows[-1:])):
                left.update(dict.fromkeys(own, after))
                if own and after:
                    by_room.setdefault(after, []).extend(own)
                    mask |= 1 << after
            at += len(taken)
    return found, np.fromiter(map(left.__getitem__, range(many_rows)), np.int64, many_rows)


def _join(first: RowPlan, second: RowPlan) -> RowPlan:
    return RowPlan(
        np.concatenate([first.counts, second.counts]),
        np.concatenate([first.documents, second.documents]),
        np.concatenate([first.starts, second.starts]),
        np.concatenate([first.lengths, second.lengths]),
    )


PACKINGS: dict[str, type[Concat] | type[BestFit]] = {"concat": Concat, "best-fit": BestFit}


def group_tokens(length: int) -> int:
    """Tokens of a group that is packed into rows of ``length``."""
    return max(GROUP_TOKENS, 64 * length)


def group_documents(sizes: Iterable[Ints], tokens: int, length: int) -> Iterator[DocumentGroup]:
    """All documents, in order, in groups of about ``tokens`` tokens: bounds what is planned at once.

    A document with more comes in several groups, each but the last a whole number of rows of ``length``.

    Args:
        sizes: tokens of each document, some documents at a time. Where one lot ends changes nothing.
        tokens: in a group.
        length: of a row.
    """
    most = max(length, tokens // length * length)
    first, held, coming = 0, np.empty(0, np.int64), iter(sizes)
    more = True
    while more or len(held):
        while more and int(held.sum()) <= most:
            lot = next(coming, None)
            more = lot is not None
            held = np.concatenate([held, lot]) if lot is not None else held
        if not len(held):
            return
        if held[0] > most:
            for start in range(0, int(held[0]), most):
                size = min(most, int(held[0]) - start)
                yield DocumentGroup(np.array([first]), np.array([start]), np.array([size]))
            stop = 1
        else:
            stop = int(np.searchsorted(np.cumsum(held), most, side="right"))
            yield DocumentGroup(first + np.arange(stop), np.zeros(stop, np.int64), held[:stop])
        first, held = first + stop, held[stop:]
