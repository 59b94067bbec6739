"""Makes the batches on which a plan times steps: of the prepared rows, or of random ids in their place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.planning.outline import Outline

MakeBatch = Callable[[int], dict[str, Tensor]]
"""Makes a batch of so many rows: int64 [rows, L] each."""


def real_rows(artifacts: Artifacts, masked: bool) -> MakeBatch:
    """The first of the prepared rows."""
    dataset = PackedDataset(artifacts.train_rows, masked)
    return lambda rows: dataset.__getitems__(range(min(rows, len(dataset))))


def random_rows(outline: Outline, masked: bool) -> MakeBatch:
    """Random ids in rows of as many documents as the text's are expected to hold."""

    def make(rows: int) -> dict[str, Tensor]:
        length = outline.sequence_length
        ids = torch.randint(outline.vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
        batch = {"input_ids": ids, "labels": ids.clone()}
        if masked:
            piece = -(-length // outline.pieces)
            batch["position_ids"] = (torch.arange(length) % piece).expand(rows, length).contiguous()
        return batch

    return make
