"""Chooses how many loader processes make the batches."""

from __future__ import annotations

import time

from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.formatting import step_time
from pretrain_cli.model.devices import ASKED, Choice, available_cores

WORTH = 0.03
"""Batches that take more than this share of a step are made by workers meanwhile."""
MOST = 4
PROBES = 4


def choose_workers(setting: int | str, dataset: PackedDataset, micro_batch: int, micro_seconds: float) -> Choice[int]:
    """Loader processes: as asked, or by the time that a batch takes against that of a training step.

    Args:
        setting: a number, or "auto".
        dataset: the training rows.
        micro_batch: rows of a batch.
        micro_seconds: what the model takes for one, about.
    """
    if isinstance(setting, int):
        return Choice(setting, ASKED)
    seconds = batch_seconds(dataset, micro_batch)
    reason = f"a batch takes {step_time(seconds)} to make, a step on it about {step_time(micro_seconds)}"
    if seconds < WORTH * micro_seconds:
        return Choice(0, reason)
    return Choice(max(1, min(MOST, available_cores() - 1)), reason)


def batch_seconds(dataset: PackedDataset, micro_batch: int) -> float:
    """Median seconds to make a batch of rows spread over the whole file."""
    times = []
    for probe in range(PROBES + 1):
        rows = [(probe + index * (PROBES + 1)) * 7919 % len(dataset) for index in range(micro_batch)]
        began = time.perf_counter()
        dataset.__getitems__(rows)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[PROBES // 2]
