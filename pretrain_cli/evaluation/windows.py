"""Which stretches of a long document go through the model, and which of their tokens count?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens ``start:end`` of a document's sequence; those from ``scored_from`` on count.

    The first token of a sequence (BOS, or what stands for it) is never scored: it belongs to no byte.
    """

    start: int
    end: int
    scored_from: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def scored(self) -> int:
        return self.end - self.scored_from


def cut_windows(n_tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Windows of at most ``context`` tokens that together score tokens 1 to ``n_tokens`` - 1 exactly once.

    Each window after the first moves on by ``stride`` tokens, scores only the new ones, and has the
    ``context - stride`` before them to look at: the strided perplexity of the transformers guide.

    Raises:
        ValueError: context below 2, or a stride outside 1 to ``context`` - 1.
    """
    if context < 2 or not 1 <= stride < context:
        raise ValueError(f"context {context} and stride {stride} can't score each token once")
    scored_to = 1
    start = 0
    while scored_to < n_tokens:
        end = min(start + context, n_tokens)
        yield Window(start, end, scored_to)
        scored_to = end
        start += stride
