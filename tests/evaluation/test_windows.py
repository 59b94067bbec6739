"""Windows of a long document: each token counts once, with as much context as fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_cli.evaluation.windows import slide, window_lengths


@given(st.lists(st.integers(1, 200), max_size=4), st.integers(2, 64), st.data())
def test_every_token_after_the_first_is_scored_exactly_once(
    sizes: list[int], context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context - 1))
    sequence = np.arange(sum(sizes))[None]
    pieces = np.split(sequence, np.cumsum(sizes)[:-1], axis=1) if sizes else []
    windows = list(slide(pieces, context, stride))
    scored = [token for window in windows for token in window.columns[0, window.scored_from :].tolist()]
    assert scored == list(range(1, sum(sizes)))
    assert all(window.length <= context and window.scored_from > 0 for window in windows)
    starts = [int(window.columns[0, 0]) for window in windows]
    assert starts == [stride * index for index in range(len(windows))]
    assert sum(window.length for window in windows) == window_lengths(sum(sizes), context, stride)


def test_a_stride_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        list(slide([np.arange(10)[None]], 4, 4))
