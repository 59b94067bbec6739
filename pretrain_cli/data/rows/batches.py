"""Makes ready batches of tensors from packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from pretrain_cli.data.rows.reader import Rows, open_rows

IGNORED = -100
LENGTHS = "cu_seq_lens"
"""Of a batch: int32 [n + 1], where each document of all its rows begins, and the end of the last one, which is repeated
until n + 1 is a power of two: a compiled model then sees few shapes."""
LEAST_LENGTHS = 64
T = TypeVar("T")


class PackedDataset(Dataset[dict[str, torch.Tensor]]):
    """Packed rows for a torch DataLoader: ``__getitems__`` makes a batch at once, which ``collate`` passes on.

    Args:
        folder: a split's rows.
        mask_documents: also give ``position_ids`` that restart at each document piece, from which transformers
            builds a block-diagonal mask, and leave the first token of each piece out of the loss.
        lengths: also give where the pieces begin, for attention without a mask; only with ``mask_documents``.
        rows: opened already; None: those in ``folder`` are opened.
    """

    def __init__(self, folder: Path, mask_documents: bool, lengths: bool = False, rows: Rows | None = None) -> None:
        self.folder, self.mask_documents, self.lengths = Path(folder), mask_documents, lengths
        self.rows = open_rows(self.folder) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One row: every tensor is int64 [L]."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """A batch of rows: input_ids, labels (and position_ids), int64 [B, L]. Labels are -100 where no loss is due."""
        ids = self.rows.gather(indices).astype(np.int64)
        labels = ids.copy()
        positions = np.empty_like(ids) if self.mask_documents else None
        for row, index in enumerate(indices):
            ends = np.cumsum(self.rows.pieces(int(index)))
            used = int(ends[-1]) if len(ends) else 0
            labels[row, used:] = IGNORED
            if positions is not None:
                starts = _piece_starts(ends, self.rows.sequence_length)
                labels[row, starts[starts < used]] = IGNORED
                positions[row] = _positions(starts, self.rows.sequence_length)
        batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        if positions is not None:
            batch["position_ids"] = torch.from_numpy(positions)
            if self.lengths:
                batch[LENGTHS] = document_starts(batch["position_ids"])
        return batch


def document_starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Where each document begins, see `LENGTHS`, of ``position_ids`` int64 [B, L] that restart at each."""
    flat = position_ids.reshape(-1).numpy()
    starts = np.flatnonzero(flat == 0)
    size = max(LEAST_LENGTHS, 1 << len(starts).bit_length())
    found = np.full(size, len(flat), dtype=np.int32)
    found[: len(starts)] = starts
    return torch.from_numpy(found)


def rows_of(batch: dict[str, torch.Tensor], start: int, count: int) -> dict[str, torch.Tensor]:
    """``count`` rows of a batch from row ``start`` on."""
    part = {name: tensor[start : start + count] for name, tensor in batch.items() if name != LENGTHS}
    if LENGTHS in batch:
        part[LENGTHS] = document_starts(part["position_ids"])
    return part


def _piece_starts(ends: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.integer]:
    """Where each piece begins, padding counted as the last one: ends [3, 5] of 8 give [0, 3, 5]."""
    starts = np.concatenate([[0], ends])
    return starts[starts < length]


def _positions(starts: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.int64]:
    """[L] positions that restart at 0 at each start."""
    sizes = np.diff(np.append(starts, length))
    return np.asarray(np.arange(length) - np.repeat(starts, sizes), np.int64)


def collate(batch: T) -> T:
    """The batch itself: ``__getitems__`` has made it already."""
    return batch
