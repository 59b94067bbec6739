"""A computed order is a permutation, and stays small."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from pretrain_cli.training.rows.order import RowOrder
from pretrain_cli.training.rows.shuffle import shuffled


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64, 1000, 4097])
def test_every_row_comes_once(rows: int) -> None:
    assert sorted(shuffled(place, rows, 5) for place in range(rows)) == list(range(rows))


def test_the_order_is_mixed_and_differs_by_key() -> None:
    first, second = ([shuffled(place, 4096, key) for place in range(4096)] for key in (1, 2))
    assert first != second
    assert sum(abs(a - b) for a, b in itertools.pairwise(first)) / 4095 == pytest.approx(4096 / 3, rel=0.05)
    for half in (first[:2048], second[:2048]):
        assert sum(half) / 2048 == pytest.approx(2047.5, rel=0.05)


def test_the_order_of_a_trillion_rows_takes_no_memory() -> None:
    tracemalloc.start()
    order = RowOrder(10**12, 8, 10**9, seed=0, rank=3, world_size=64, start=10**8)
    rows = next(iter(order))
    assert len(set(rows)) == 8 and all(0 <= row < 10**12 for row in rows)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
