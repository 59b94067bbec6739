"""Which of how many processes is this one, and how do they agree?"""

from __future__ import annotations

import os

import torch


def rank() -> int:
    """This process's number, as the launcher says; 0 writes and talks."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Processes of this training, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def agree(mine: bool, device: torch.device) -> bool:
    """Rank 0's answer, on every process: their clocks differ, their steps must not."""
    if world_size() == 1:
        return mine
    flag = torch.tensor(int(mine), device=device)
    torch.distributed.broadcast(flag, 0)
    return bool(flag)


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of a scalar over all processes."""
    if world_size() == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / world_size()


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world_size() > 1:
        torch.distributed.barrier()
