"""Orders rows into micro-batches, alike on any number of processes and from any step on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch.utils.data import Sampler

from pretrain_cli.training.rows.shuffle import FileWindows, key_of, shuffled
from pretrain_cli.training.rows.stages import StagedRows

LARGEST_LIST = 1 << 20
"""Up to so many rows an epoch's order is drawn as a list (8 MB); above it each row is computed where it is needed."""
Keep = Callable[[Collection[int], Collection[int]], None]
"""Gets the files that the next rows are in, and those that come after."""


class RowOrder(Sampler[list[int]]):
    """Micro-batches of row indices, for one process, as one endless seeded sequence of shuffled epochs.

    Row order is one global sequence: epoch after epoch, each a permutation from ``seed`` and epoch. Micro-batch k of
    process p takes the rows at (k · world + p) · micro …, so that an optimizer step holds the same rows on any number
    of processes. Any position is computed, never walked to; rows stay in batches across the border of epochs.

    Args:
        rows: rows there are.
        micro_batch: rows in one micro-batch.
        total: micro-batches of each process in the whole run.
        seed: of the permutations.
        rank, world_size: this process and how many there are.
        start: micro-batches already done.
        replaced_from: global position from which rows in ``left_out`` give way to their right neighbours.
        left_out: rows that a diverged step held.
        stages: the rows in their stead, where the mixture changes during the run; None: epochs of all rows.
        windows: the order within and of a few files at a time; None: all rows are shuffled together.
        keep: gets the files that the next rows are in, and those that come after.
    """

    def __init__(
        self,
        rows: int,
        micro_batch: int,
        total: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        left_out: frozenset[int] = frozenset(),
        replaced_from: int = 0,
        stages: StagedRows | None = None,
        windows: FileWindows | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.rows, self.micro_batch, self.total, self.seed = rows, micro_batch, total, seed
        self.rank, self.world_size, self.start = rank, world_size, start
        self.left_out, self.replaced_from = left_out, replaced_from
        self.stages = stages
        self.windows, self.keep = windows, keep
        self._touched: set[int] = set()
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        at = -1
        for index in range(self.start, self.total):
            self._touched = set()
            rows = self.micro(index, self.rank)
            if self.windows is not None and self.keep is not None and (newest := max(self._touched)) != at:
                at = newest
                now = [file for window in sorted(self._touched) for file in self.windows.files(window)]
                self.keep(now, self.windows.files(newest + 1))
            yield rows

    def micro(self, index: int, rank: int) -> list[int]:
        """Rows of micro-batch ``index`` on process ``rank``."""
        first = (index * self.world_size + rank) * self.micro_batch
        return [self._row(position) for position in range(first, first + self.micro_batch)]

    def step(self, step: int, accumulation: int) -> list[int]:
        """Rows of optimizer step ``step`` (the first is 1) over all processes."""
        indices = range((step - 1) * accumulation, step * accumulation)
        return [row for index in indices for rank in range(self.world_size) for row in self.micro(index, rank)]

    def _row(self, position: int) -> int:
        if self.stages is not None:
            turn, place, size = self.stages.find(position)
        else:
            (turn, place), size = divmod(position, self.rows), self.rows
        at: Callable[[int, int], int] = self._shuffled if self.stages is None else self.stages.row
        row = at(turn, place)
        if self.left_out and position >= self.replaced_from:
            for _ in range(size):  # all of a stage's rows may be left out
                if row not in self.left_out:
                    break
                place = (place + 1) % size
                row = at(turn, place)
        return row

    def _shuffled(self, epoch: int, place: int) -> int:
        if self.windows is not None:
            window, row = self.windows.row(epoch, place)
            self._touched.add(window)
            return row
        if self.rows > LARGEST_LIST:
            return shuffled(place, self.rows, key_of(self.seed, epoch))
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(key_of(self.seed, epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.rows, generator=generator)
        return self._permutation


def continued(order: RowOrder, start: int) -> RowOrder:
    """The same order from micro-batch ``start`` on."""
    return RowOrder(
        order.rows, order.micro_batch, order.total, order.seed, order.rank, order.world_size, start,
        order.left_out, order.replaced_from, order.stages, order.windows, order.keep,
    )  # fmt: skip


def epochs_at(step: int, batch_rows: int, rows: int) -> float:
    """Passes over the rows after ``step`` steps."""
    return step * batch_rows / rows
