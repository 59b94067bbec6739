"""Lets the processes of one training meet and agree.

Rank 0 reports, writes, and decides what depends on the machine's speed or clock. Values are agreed on over gloo, even
where the training itself uses NCCL. A process that is alone gets every answer at once.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pretrain_cli.errors import ConfigError, first_line
from pretrain_cli.model.devices import check_processes, device_count
from pretrain_cli.processes import rank, world_size

__all__ = ["agree", "apart", "gathered", "group", "rank", "same", "together", "totals", "wait_for_all", "world_size"]

T = TypeVar("T")
WAIT = datetime.timedelta(hours=2)
"""What one process does alone may take this long: a large checkpoint on a slow disk. Over gloo a process that ends is
noticed at once, whatever this is; it is for one that hangs."""
STEP_WAIT = datetime.timedelta(minutes=10)
"""A step's own sums wait so long for another process: a machine that is gone is noticed after it."""
_talk: list[Any] = []
"""The groups that values are agreed on in, while `together` holds: the main thread's, and the one of `apart`."""
_thread = threading.local()


@contextlib.contextmanager
def together(device: str) -> Iterator[None]:
    """Join the other processes, and leave them at the end.

    Args:
        device: what all of them compute on, as `choose_device` gives it.

    Raises:
        ConfigError: the launcher's variables don't lead to the others, or the device isn't for several processes.
    """
    if world_size() == 1:
        yield
        return
    check_processes(device, world_size())
    kind = torch.device(device).type
    if kind != "cpu":
        _take_own_gpu(kind)
    backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    try:
        dist.init_process_group(backend, timeout=STEP_WAIT)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The {world_size()} processes of this training can't connect to each other: {first_line(error)}",
            "Check RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or start with: ptk train --processes N",
        ) from error
    _talk.extend(dist.new_group(backend="gloo", timeout=WAIT) for _ in range(2))
    try:
        yield
    finally:
        _talk.clear()
        dist.destroy_process_group()


def _take_own_gpu(kind: str) -> None:
    """Make this process's GPU the current one, and LOCAL_RANK its number among those that the process sees.

    Under srun --gpus-per-task=1 each task sees its own alone, as number 0, whatever its place on the machine.
    accelerate gives LOCAL_RANK to DDP as the GPU's number.
    """
    number = int(os.environ.get("LOCAL_RANK", "0")) % device_count(kind)
    os.environ["LOCAL_RANK"] = str(number)
    torch.get_device_module(kind).set_device(number)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Agree in a group of its own: this thread does so beside the main one, whose values must not mix with its own."""
    _thread.group = 1
    try:
        yield
    finally:
        _thread.group = 0


def group() -> Any:
    """The group that this thread agrees in; None for a process that is alone."""
    return _talk[getattr(_thread, "group", 0)] if _talk else None


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
    dist.broadcast_object_list(box, 0, group=group())
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
    dist.all_reduce(sums, group=group())
    return [float(value) for value in sums]


def gathered(mine: T) -> list[T]:
    """What each process has, in the order of their ranks."""
    if not _talk:
        return [mine]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, mine, group=group())
    return values


def wait_for_all() -> None:
    """Wait until every process is here."""
    if _talk:
        dist.barrier(group=group())
