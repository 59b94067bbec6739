from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_cli.evaluation.windows import cut_windows


@given(st.integers(0, 400), st.integers(2, 64), st.data())
def test_every_token_after_the_first_is_scored_exactly_once(n_tokens: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context - 1))
    windows = list(cut_windows(n_tokens, context, stride))
    scored = [token for window in windows for token in range(window.scored_from, window.end)]
    assert scored == list(range(1, n_tokens))
    assert all(window.length <= context and window.scored_from > window.start for window in windows)


def test_a_stride_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        list(cut_windows(10, 4, 4))
