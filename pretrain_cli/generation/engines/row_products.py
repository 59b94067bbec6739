"""Multiplies one row by a matrix in the way that is fastest on this machine now.

With one token at a time, the time goes into streaming the weights from memory. torch's product of one row streams 11 to
12 GB/s on the two cores that this was measured on (`benchmarks/generate.py --products`), a copy of the weights laid out
in blocks 20 to 26 GB/s. On other machines, products that are summed in the cache are the fastest way without a copy. A
few milliseconds of timing tell which one to take.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain_cli.model.devices import choose_threads

CACHED_VALUES = 2_000_000
"""Products at a time, 8 MB: they are added up before they leave the cache."""
COPIED_ROWS = 512
"""Rows transposed at a time, so that they stay in the cache."""
SAMPLE_BYTES = 64 << 20
"""Weights that products are timed on: twice the last cache of most CPUs, so that they come from memory."""
TIMED_ROWS, TIMED_PASSES = 2048, 3


class RoundedWeight(NamedTuple):
    """A weight in 8 bits: ``values`` int8 [out, in] times ``scales`` bf16 [out]."""

    values: Tensor
    scales: Tensor


@dataclass(frozen=True)
class RowProduct:
    """A way to multiply one row.

    Attributes:
        lay_out: (weights [out, in] of the same input, threads) → the pieces that ``multiply`` takes.
        multiply: (x [..., in], a piece) → [..., out], as ``F.linear``.
    """

    lay_out: Callable[[tuple[Tensor, ...], int], tuple[Any, ...]]
    multiply: Callable[[Tensor, Any], Tensor]


@dataclass
class Projection:
    """One or more linear maps of the same input, their outputs side by side.

    Attributes:
        weights: as stored, [out, in] each and memory-mapped.
        bias: [out] of all together.
        rows: fewer rows than this are filled up to it; 0: they aren't.
        product: of a single row.
        laid_out: what ``product`` keeps of the weights.
    """

    weights: tuple[Tensor, ...]
    bias: Tensor | None
    rows: int
    product: RowProduct | None = None
    laid_out: tuple[Any, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        count = x.shape[0]
        if count < self.rows and x.dim() > 1 and x.numel() == count * x.shape[-1]:
            x = torch.cat([x, x.new_zeros(self.rows - count, *x.shape[1:])])
        return self._joined([F.linear(x, weight) for weight in self.weights])[:count]

    def of_row(self, x: Tensor) -> Tensor:
        """The same for a single row, with the product that the weights were laid out for."""
        assert self.product is not None
        return self._joined([self.product.multiply(x, weight) for weight in self.laid_out])

    def lay_out(self, product: RowProduct, threads: int) -> None:
        """Prepare the weights for ``of_row`` with ``product`` on that many threads."""
        if self.product is not product:
            self.product, self.laid_out = product, product.lay_out(self.weights, threads)

    @property
    def n_bytes(self) -> int:
        """Of the weights as stored."""
        return sum(weight.numel() * weight.element_size() for weight in self.weights)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y if self.bias is None else y + self.bias


def as_stored(weights: tuple[Tensor, ...], threads: int) -> tuple[Tensor, ...]:
    """The layout of a product that takes the weights as they are."""
    return weights


def summed_product(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` of one row as an elementwise product that stays in the cache, then summed."""
    rows = max(1, CACHED_VALUES // weight.shape[1])
    row = x.reshape(-1)
    sums = [(part * row).sum(dim=1) for part in torch.split(weight, rows)]
    return (sums[0] if len(sums) == 1 else torch.cat(sums)).view(*x.shape[:-1], -1)


def in_blocks(weights: tuple[Tensor, ...], threads: int) -> tuple[Tensor, ...]:
    """One copy of all ``weights`` [out, in], transposed and cut into blocks of inputs [blocks, in / blocks, out].

    Each block is a separate product: as many blocks as threads, or the next smaller number that divides the inputs.
    """
    width, rows = weights[0].shape[1], sum(len(weight) for weight in weights)
    whole, at = weights[0].new_empty(width, rows), 0
    for part in (part for weight in weights for part in torch.split(weight, COPIED_ROWS)):
        whole[:, at : at + len(part)].copy_(part.t())
        at += len(part)
    blocks = next(count for count in range(threads, 0, -1) if width % count == 0)
    return (whole.view(blocks, width // blocks, rows),)


def block_product(x: Tensor, blocks: Tensor) -> Tensor:
    """``F.linear`` of one row with weights ``in_blocks``: the blocks' products are added up."""
    count, width, rows = blocks.shape
    parts = torch.bmm(x.reshape(count, 1, width), blocks)
    # Adding two is a third of the work of a sum.
    whole = parts[0] + parts[1] if count == 2 else parts.sum(dim=0)
    return whole.view(*x.shape[:-1], rows)


def in_bf16(weights: tuple[Tensor, ...], threads: int) -> tuple[Tensor, ...]:
    """Copies in bf16, half as many bytes to read."""
    return tuple(weight.to(torch.bfloat16) for weight in weights)


def bf16_product(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` of rows in bf16; the sum in fp32 is rounded once."""
    return F.linear(x.to(torch.bfloat16), weight).float()


def in_int8(weights: tuple[Tensor, ...], threads: int) -> tuple[RoundedWeight, ...]:
    """Copies in 8 bits, a scale for each output (as LLM.int8, arXiv 2208.07339, without its outliers)."""
    return tuple(map(_rounded, weights))


def _rounded(weight: Tensor) -> RoundedWeight:
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=torch.bfloat16)
    for start in range(0, len(weight), COPIED_ROWS):
        part = weight[start : start + COPIED_ROWS].float()
        scale = (part.abs().amax(dim=1) / 127).clamp_min(1e-12).to(torch.bfloat16)
        scales[start : start + COPIED_ROWS] = scale
        values[start : start + COPIED_ROWS] = (part / scale.float()[:, None]).round().clamp(-127, 127)
    return RoundedWeight(values, scales)


def int8_product(x: Tensor, weight: RoundedWeight) -> Tensor:
    """``F.linear`` of rows in bf16 with a weight in 8 bits, by torch's own kernel, which torchao and gpt-fast call too.

    torchao 0.18's own linear layers take two to seven times fp32's time here, where nothing is compiled.
    """
    rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
    product: Tensor = torch._weight_int8pack_mm(rows, weight.values, weight.scales)
    return product.float().view(*x.shape[:-1], -1)


LINEAR = RowProduct(as_stored, F.linear)
IN_BF16, IN_INT8 = RowProduct(in_bf16, bf16_product), RowProduct(in_int8, int8_product)
SUMMED = RowProduct(as_stored, summed_product)
IN_BLOCKS = RowProduct(in_blocks, block_product)


def fastest_product(projections: Sequence[Projection], may_copy: bool) -> RowProduct:
    """The fastest product of one row here: torch's own, unless another takes at least a tenth less time.

    Args:
        projections: with inputs of one width; the first ones are tried, and left laid out for the last way tried.
        may_copy: whether there is memory for a copy of all weights.
    """
    before = itertools.accumulate((projection.n_bytes for projection in projections), initial=0)
    sample = [projection for projection, n_bytes in zip(projections, before, strict=False) if n_bytes < SAMPLE_BYTES]
    other = IN_BLOCKS if may_copy else SUMMED
    row = sample[0].weights[0].new_ones(1, sample[0].weights[0].shape[1])

    def multiply() -> None:
        for projection in sample:
            projection.of_row(row)

    times = {}
    for way in (LINEAR, other):
        for projection in sample:
            projection.lay_out(way, torch.get_num_threads())
        times[way] = min(_passes(multiply))
    return other if times[other] < 0.9 * times[LINEAR] else LINEAR


def bf16_gain(weight: Tensor) -> float:
    """How much faster rows are multiplied with bf16 copies of ``weight`` [out, in] than with itself, as timed now."""
    sample = weight[: max(1, SAMPLE_BYTES // (weight.shape[1] * weight.element_size()))]
    row, (copied,) = sample.new_ones(1, sample.shape[1]), in_bf16((sample,), 1)
    fp32 = min(_passes(lambda: F.linear(row, sample)))
    return fp32 / min(_passes(lambda: bf16_product(row, copied)))


def sensible_threads(weight: Tensor) -> int:
    """torch's threads, or fewer where other processes use the cores: threads wait for each other."""
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    parts = torch.split(weight[: 4 * TIMED_ROWS], TIMED_ROWS)
    row = weight.new_ones(1, weight.shape[1])

    def multiply() -> None:
        for part in parts:
            summed_product(row, part)  # takes all threads wherever torch's own product of one row takes one

    together = median(_passes(multiply))
    torch.set_num_threads(1)
    alone = median(_passes(multiply))
    torch.set_num_threads(threads)
    if 2 * alone >= together:
        return threads
    # Slow for a moment, or because of other processes? Only now is looking worth its 0.2 s.
    return min(threads, choose_threads("auto").value)


def _passes(work: Callable[[], object]) -> list[float]:
    """Seconds of each pass, after one that reads the weights from disk, wakes the threads and takes the memory."""
    times = []
    for _ in range(TIMED_PASSES + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times[1:]
