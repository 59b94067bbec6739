"""Computes each metric from sums over scored tokens; a new metric goes here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pretrain_cli.evaluation.sums import Sums

Metric = Callable[[Sums], Sums]
"""sums float64[..., 5] in the order of sums.COLUMNS → value float64[...]"""


def bits_per_byte(sums: Sums) -> Sums:
    """Bits that the model needs for each byte of text; compares across tokenizers (The Pile, arXiv 2101.00027)."""
    return np.asarray(sums[..., 0] / math.log(2) / sums[..., 4])


def loss(sums: Sums) -> Sums:
    """Nats per token; compares only models with the same tokenizer."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def perplexity(sums: Sums) -> Sums:
    """exp of the loss, infinite where that overflows."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(loss(sums)))


def accuracy(sums: Sums) -> Sums:
    """Share of tokens that were the model's most probable one."""
    return np.asarray(sums[..., 2] / sums[..., 1])


def accuracy_top5(sums: Sums) -> Sums:
    """Share of tokens that were among the model's five most probable ones."""
    return np.asarray(sums[..., 3] / sums[..., 1])


METRICS: dict[str, Metric] = {
    "bits_per_byte": bits_per_byte,
    "loss": loss,
    "perplexity": perplexity,
    "accuracy": accuracy,
    "accuracy_top5": accuracy_top5,
}
