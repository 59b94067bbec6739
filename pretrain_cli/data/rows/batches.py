"""Makes ready batches of tensors from packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from pretrain_cli.data.rows.reader import open_rows

IGNORED = -100
T = TypeVar("T")


class PackedDataset(Dataset[dict[str, torch.Tensor]]):
    """Packed rows for a torch DataLoader: ``__getitems__`` makes a batch at once, which ``collate`` passes on.

    Args:
        folder: a split's rows.
        mask_documents: also give ``position_ids`` that restart at each document piece, from which transformers
            builds a block-diagonal mask, and leave the first token of each piece out of the loss.
    """

    def __init__(self, folder: Path, mask_documents: bool) -> None:
        self.folder, self.mask_documents = Path(folder), mask_documents
        self.rows = open_rows(self.folder)

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
        return batch


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
