"""Cuts a long document into windows that go through the model, each token scored once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Columns = NDArray[np.int64]
"""A part of a sequence, int64[k, n]: the ids, and k - 1 facts about each."""


@dataclass(frozen=True)
class TokenWindow:
    """A part of a document's sequence, ``columns`` int64[k, length]; its tokens from ``scored_from`` on are scored.

    The first token of a sequence (BOS, or what replaces it) is never scored: it belongs to no byte.
    """

    columns: Columns
    scored_from: int

    @property
    def length(self) -> int:
        """Tokens."""
        return int(self.columns.shape[1])

    @property
    def scored(self) -> int:
        """Tokens that are scored."""
        return self.length - self.scored_from


def slide(pieces: Iterable[Columns], context: int, stride: int) -> Iterator[TokenWindow]:
    """Windows of at most ``context`` tokens over a sequence that comes in pieces, scoring all but its first token once.

    Each window after the first advances by ``stride`` tokens and scores only the new ones; those before them are
    context. This is the strided perplexity of the transformers guide. Holds one piece and one window.

    Raises:
        ValueError: context below 2, or a stride outside 1 to ``context`` - 1.
    """
    if context < 2 or not 1 <= stride < context:
        raise ValueError(f"context {context} and stride {stride} can't score each token once")
    held: Columns | None = None
    scored_from = 1
    for piece in pieces:
        held = piece if held is None else np.concatenate([held, piece], axis=1)
        # A window is full, and not the last one, once a token follows it.
        while held.shape[1] > context:
            yield TokenWindow(held[:, :context], scored_from)
            held = held[:, stride:]
            scored_from = context - stride
    if held is not None and held.shape[1] > scored_from:
        yield TokenWindow(held, scored_from)


def window_lengths(n_tokens: int, context: int, stride: int) -> int:
    """Tokens that go through the model for a sequence of ``n_tokens``: the sum of its windows' lengths."""
    if n_tokens < 2:
        return 0
    full = max(0, -(-(n_tokens - context) // stride))
    return full * context + n_tokens - full * stride
