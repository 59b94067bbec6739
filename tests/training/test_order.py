"""All rows are taken once an epoch, in the same order on any number of processes and from any step."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_cli.training.rows.order import RowOrder, continued


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 3))
def test_every_row_comes_once_in_each_epoch(rows: int, micro: int, seed: int) -> None:
    order = RowOrder(rows, micro, total=3 * rows, seed=seed)
    taken = list(itertools.islice(itertools.chain.from_iterable(order), 3 * rows))
    for epoch in range(3):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_a_step_holds_the_same_rows_on_one_two_or_four_processes() -> None:
    steps = []
    for world, micro, accumulation in ((1, 8, 1), (2, 4, 1), (4, 1, 2), (1, 2, 4)):
        order = RowOrder(37, micro, 100, seed=1, world_size=world)
        steps.append([sorted(order.step(step, accumulation)) for step in range(1, 12)])
    assert all(other == steps[0] for other in steps)


def test_going_on_is_the_rest_of_the_same_order() -> None:
    order = RowOrder(23, 3, 40, seed=5, rank=1, world_size=2)
    assert list(continued(order, 17)) == list(order)[17:]


def test_a_rewind_leaves_rows_out_and_moves_no_other_position_before_it() -> None:
    plain = RowOrder(50, 5, 30, seed=2)
    bad = frozenset(plain.step(4, 1))
    without = RowOrder(50, 5, 30, seed=2, left_out=bad, replaced_from=3 * 5)
    assert list(without)[:3] == list(plain)[:3]
    assert not bad & {row for micro in list(without)[3:] for row in micro}


def test_a_position_far_into_a_large_set_costs_no_walk() -> None:
    order = RowOrder(1_000_000, 8, 10**9, seed=0, start=10**8)
    assert len(next(iter(order))) == 8
