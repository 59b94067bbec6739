"""Shares work that comes in pieces among a CPU's cores.

Each core takes whole pieces: two threads that share every small operation of one piece wait for each other between
operations, two that each have a piece don't. What a piece needs also stays in the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MOST_WORKERS = 8
"""Each needs memory for its piece, such as the logits of some positions; more cores share a piece."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(device: torch.device) -> int:
    """Pieces at a time: one on an accelerator, one for each of torch's threads on a CPU."""
    return 1 if device.type != "cpu" else min(MOST_WORKERS, torch.get_num_threads())


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``function`` of each item, in order, ``workers`` at a time, which divide torch's threads among them.

    Takes only a few items ahead of the one whose result it gives. torch calls release Python's lock.
    """
    if workers == 1:
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # new threads of this process start with the last setting
