"""Says how certain a figure is, by bootstrap over pieces of text; for a paired difference with a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain_cli.evaluation.metrics import Metric
from pretrain_cli.evaluation.sums import Sums

RESAMPLES = 2000
LOWEST_UNITS = 4
"""With fewer units a bootstrap says nothing, and no interval is given."""
ENOUGH_DOCUMENTS = 20


@dataclass(frozen=True)
class Interval:
    """A 95% interval; NaN ends where there was too little text for one."""

    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there was enough text."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class Difference:
    """First minus second model, with its interval, and what that shows."""

    value: float
    interval: Interval
    verdict: str


def units(documents: list[Sums]) -> Sums:
    """The pieces to draw from, float64[n, 5]: documents, or their blocks where there are few or a few have most text.

    Neighboring blocks of a document are alike, so an interval over blocks is slightly too narrow. But a draw without
    the document that has most of the text says nothing of that text: one with over a twentieth of the bytes is cut.
    """
    if len(documents) < ENOUGH_DOCUMENTS:
        return np.concatenate(documents)
    most = sum(float(blocks[:, 4].sum()) for blocks in documents) / ENOUGH_DOCUMENTS
    whole = [blocks[:, 4].sum() <= most for blocks in documents]
    return np.concatenate(
        [blocks.sum(axis=0, keepdims=True) if one else blocks for blocks, one in zip(documents, whole, strict=True)]
    )


def interval(metric: Metric, sums: Sums, seed: int = 0) -> Interval:
    """95% percentile bootstrap of ``metric`` over the rows of ``sums`` (Efron 1979)."""
    if len(sums) < LOWEST_UNITS:
        return Interval(math.nan, math.nan)
    return middle(metric(_resample(sums, seed)))


def difference(metric: Metric, first: Sums, second: Sums, seed: int = 0) -> Difference:
    """``metric`` of first minus second over the same units; lower is better.

    Raises:
        ValueError: the two don't have the same units.
    """
    if len(first) != len(second) or not np.array_equal(first[:, 4], second[:, 4]):
        raise ValueError("a paired difference needs the same text, cut the same way")
    value = float(metric(first.sum(axis=0)) - metric(second.sum(axis=0)))
    if len(first) < LOWEST_UNITS:
        return Difference(value, Interval(math.nan, math.nan), "too little text to say")
    values = metric(_resample(first, seed)) - metric(_resample(second, seed))
    found = middle(values)
    verdict = "better" if found.high < 0 else "worse" if found.low > 0 else "no difference seen"
    return Difference(value, found, verdict)


def draws(n: int, seed: int) -> NDArray[np.int64]:
    """How often each of n units is drawn, int64[RESAMPLES, n], with replacement; the same for the same seed and n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def middle(values: NDArray[np.float64]) -> Interval:
    """What holds the middle 95% of a figure's resampled ``values``."""
    low, high = np.nanquantile(values, [0.025, 0.975]).tolist()
    return Interval(low, high)


def _resample(sums: Sums, seed: int) -> Sums:
    """Sums of draws with replacement, float64[RESAMPLES, 5]."""
    return np.asarray(draws(len(sums), seed) @ sums)
