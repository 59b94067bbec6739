"""Moves the learning rate over a training, by steps or by the clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

COOLDOWN_SHARE = 0.2
"""Last share of the run in which wsd comes down; with 1-sqrt a fifth is enough (Hägele et al., arXiv 2405.18392)."""


def rate_factor(schedule: str, progress: float, floor: float = 0.0) -> float:
    """The share of the peak learning rate, without warm-up.

    Args:
        schedule: "linear", "cosine", "wsd" or "constant".
        progress: share of the run that is done, 0 to 1.
        floor: the share at the end.
    """
    done = min(1.0, max(0.0, progress))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        shape = 1.0 - done
    elif schedule == "cosine":
        shape = 0.5 * (1.0 + math.cos(math.pi * done))
    elif schedule == "wsd":
        cooling = (done - (1.0 - COOLDOWN_SHARE)) / COOLDOWN_SHARE
        shape = 1.0 if cooling <= 0 else 1.0 - math.sqrt(cooling)
    else:
        raise ValueError(f"no schedule {schedule!r}")
    return floor + (1.0 - floor) * shape


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    schedule: str,
    warmup_steps: int,
    progress: Callable[[int], float],
    floor: float = 0.0,
    warmup_share: float = 0.0,
) -> LambdaLR:
    """A scheduler whose rate follows ``progress(step)``, whatever that counts; the decay begins after the warm-up.

    Args:
        optimizer: its groups' rates are the peaks.
        schedule: see `rate_factor`.
        warmup_steps: steps from 0 to the peak.
        progress: share of the run that is done before step ``step`` + 1.
        floor: the share of the peak at the end.
        warmup_share: share of the run that the warm-up takes.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (warmup_steps + 1))
        done = (progress(step) - warmup_share) / max(1e-9, 1.0 - warmup_share)
        return warm * rate_factor(schedule, done, floor)

    return LambdaLR(optimizer, factor)
