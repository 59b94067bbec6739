"""Packing places every token once, in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_cli.data.rows.packing import BestFit, Concat, RowPlan, group_documents


def run(packer: Concat | BestFit, sizes: list[int], group: int) -> list[RowPlan]:
    lots = np.array_split(np.array(sizes, np.int64), 3)  # where one lot ends changes nothing
    plans = [packer.add(documents) for documents in group_documents(lots, group, packer.length)]
    return [*plans, packer.finish()]


def rows_of(plans: list[RowPlan]) -> list[list[tuple[int, int, int]]]:
    rows = []
    for plan in plans:
        pieces = list(zip(plan.documents.tolist(), plan.starts.tolist(), plan.lengths.tolist(), strict=True))
        at = 0
        for count in plan.counts.tolist():
            rows.append(pieces[at : at + count])
            at += count
        assert at == len(pieces)
    return rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 33), st.integers(1, 200))
def test_best_fit_places_every_token_once_and_overfills_no_row(sizes: list[int], length: int, group: int) -> None:
    rows = rows_of(run(BestFit(length), sizes, group))
    assert all(0 < sum(piece[2] for piece in row) <= length for row in rows)
    seen = {index: [] for index in range(len(sizes))}
    for document, start, many in (piece for row in rows for piece in row):
        seen[document] += range(start, start + many)
    assert {index: sorted(tokens) for index, tokens in seen.items()} == {
        index: list(range(size)) for index, size in enumerate(sizes)
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 33), st.integers(1, 200))
def test_concat_equals_the_documents_end_to_end_and_cut(sizes: list[int], length: int, group: int) -> None:
    packer = Concat(length)
    rows = rows_of(run(packer, sizes, group))
    flat = [(d, t) for row in rows for d, start, many in row for t in range(start, start + many)]
    reference = [(d, t) for d, size in enumerate(sizes) for t in range(size)]
    full = len(reference) // length * length
    assert flat == reference[:full]
    assert packer.tail == len(reference) - full
    assert all(sum(piece[2] for piece in row) == length for row in rows)
    for row in rows:
        assert len({piece[0] for piece in row}) == len(row), "a document is cut inside a row"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=20), st.integers(1, 33), st.integers(1, 200))
def test_a_document_in_several_groups_fills_the_rows_of_the_whole(sizes: list[int], length: int, group: int) -> None:
    assert rows_of(run(Concat(length), sizes, group)) == rows_of(run(Concat(length), sizes, 10_000))
    long = [size for size in sizes if size > group // length * length][:1]
    assert rows_of(run(BestFit(length), long, group)) == rows_of(run(BestFit(length), long, 10_000))


def test_best_fit_fills_rows_of_512_to_995_in_1000() -> None:
    sizes = np.random.default_rng(0).lognormal(6, 1.2, 2000).astype(np.int64) + 1
    rows = rows_of(run(BestFit(512), sizes.tolist(), 1 << 20))
    assert sizes.sum() / (512 * len(rows)) >= 0.995
