"""Which way to multiply one row by a matrix is the fastest on this machine at this time?

One token at a time, the time goes into streaming the weights from memory. torch's product of one row takes a single
thread on many CPUs (10 GB/s here). Two others take all of them over the weights as they are stored, without a copy;
some milliseconds of timing tell which one to take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED_VALUES = 2_000_000
"""Products at a time, 8 MB: they are added up before they leave the cache."""
TIMED_ROWS, TIMED_PASSES = 2048, 5

Product = Callable[[Tensor, Tensor], Tensor]
"""x [..., in], weight [out, in] -> [..., out], as ``F.linear``."""


@dataclass(frozen=True)
class Projection:
    """One or more linear maps of the same input, their outputs side by side.

    ``weights`` are as stored, [out, in] each and memory-mapped; ``product``: of a single row; ``rows``: fewer rows are
    filled up to so many, 0: they aren't.
    """

    weights: tuple[Tensor, ...]
    bias: Tensor | None
    product: Product
    rows: int

    def __call__(self, x: Tensor) -> Tensor:
        product = self.product if x.numel() == x.shape[-1] else F.linear
        count = x.shape[0]
        if count < self.rows and x.dim() > 1 and x.numel() == count * x.shape[-1]:
            x = torch.cat([x, x.new_zeros(self.rows - count, *x.shape[1:])])
            product = F.linear
        parts = [product(x, weight) for weight in self.weights]
        y = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))[:count]
        return y if self.bias is None else y + self.bias


def summed_product(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` of one row as a product that stays in the cache, and its sums."""
    rows = max(1, CACHED_VALUES // weight.shape[1])
    row = x.reshape(-1)
    sums = [(part * row).sum(dim=1) for part in torch.split(weight, rows)]
    return (sums[0] if len(sums) == 1 else torch.cat(sums)).view(*x.shape[:-1], -1)


def shared_product(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` of one row with the weight's rows shared out to the threads, as a batch of products."""
    threads = torch.get_num_threads()
    rows, width = weight.shape
    if rows % threads:
        return F.linear(x, weight)
    parts = torch.bmm(weight.view(threads, -1, width), x.reshape(1, -1, 1).expand(threads, -1, 1))
    return parts.view(*x.shape[:-1], rows)


def fastest_product(weight: Tensor) -> tuple[Product, int]:
    """The product of one row that is fastest here, torch's own unless another needs a fifth less; and its threads.

    Threads wait for each other: where another process holds a core, one alone is many times as fast as all together.
    """
    parts = torch.split(weight[: 4 * TIMED_ROWS], TIMED_ROWS)
    row = torch.ones(1, weight.shape[1], dtype=weight.dtype)
    threads = torch.get_num_threads()

    def seconds(product: Product) -> list[float]:
        times = []
        for _ in range(TIMED_PASSES + 1):
            started = time.perf_counter()
            for part in parts:
                product(row, part)
            times.append(time.perf_counter() - started)
        return times[1:]  # the first pass reads the weights from the disk, wakes the threads, and gets its memory

    times = {product: seconds(product) for product in (F.linear, summed_product, shared_product)}
    best = min(times, key=lambda product: min(times[product]))
    if min(times[best]) * 1.2 > min(times[F.linear]):
        best = F.linear
    if threads > 1:
        torch.set_num_threads(1)
        alone = seconds(F.linear)
        torch.set_num_threads(threads)
        if median(alone) * 2 < median(times[best]):
            return F.linear, 1
    return best, threads
