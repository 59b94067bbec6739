"""Lets the processes of one training meet and agree.

Rank 0 reports, writes, and decides what depends on the machine's speed or clock. Values are agreed on over gloo, even
where the training itself uses NCCL. A process that is alone gets every answer at once.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pretrain_cli.errors import ConfigError, first_line
from pretrain_cli.processes import rank, world_size

__all__ = ["agree", "rank", "same", "together", "totals", "wait_for_all", "world_size"]

T = TypeVar("T")
WAIT = datetime.timedelta(minutes=30)
"""What rank 0 does alone, saving above all, may take this long."""
_talk: list[Any] = []
"""The group that values are agreed on in, while `together` holds."""


@contextlib.contextmanager
def together(on_cpu: bool) -> Iterator[None]:
    """Join the other processes, and leave them at the end.

    Raises:
        ConfigError: the launcher's variables don't lead to the others.
    """
    if world_size() == 1:
        yield
        return
    if not on_cpu:
        # A task that sees its own GPU alone finds it as number 0.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        dist.init_process_group("gloo" if on_cpu else "cpu:gloo,cuda:nccl", timeout=WAIT)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The {world_size()} processes of this training can't connect to each other: {first_line(error)}",
            "Check RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or start with: ptk train --processes N",
        ) from error
    _talk.append(dist.new_group(backend="gloo", timeout=WAIT))
    try:
        yield
    finally:
        _talk.clear()
        dist.destroy_process_group()


def same(make: Callable[[], T]) -> T:
    """What ``make`` gives on rank 0, on every process; an error there is raised on all."""
    if not _talk:
        return make()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = make()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, 0, group=_talk[0])
    if box[1] is not None:
        raise box[1]
    value: T = box[0]
    return value


def agree(mine: bool) -> bool:
    """Rank 0's answer, on every process: their clocks differ, their steps must not."""
    return totals(float(mine and rank() == 0))[0] > 0


def totals(*values: float) -> list[float]:
    """Each value summed over all processes."""
    if not _talk:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums, group=_talk[0])
    return [float(value) for value in sums]


def wait_for_all() -> None:
    """Wait until every process is here."""
    if _talk:
        dist.barrier(group=_talk[0])
