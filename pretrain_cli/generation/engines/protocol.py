"""States what an engine can do, for the code that writes with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.generation.results import GeneratedText, OnText

if TYPE_CHECKING:
    from torch import Tensor

MOST_ROWS = 16
"""Rows of a batch at most: enough to share the weights' way through memory, few enough for the cache."""


class Writer(Protocol):
    """A model in memory that writes text, whichever engine runs it."""

    def write(
        self,
        prompts: Sequence[str],
        config: GenerateConfig,
        warn: Callable[[str], None],
        on_text: OnText | None,
        started: float,
    ) -> list[GeneratedText]:
        """Every sample of every prompt, in order; the first token is timed from ``started``."""


class LogitsEngine(Protocol):
    """Computes one model's logits for one batch at a time; `decoding` makes text of them."""

    context: int
    """Tokens that the model can look at."""
    vocab_size: int
    threads: int
    """torch's threads on a CPU while it writes."""
    rounds: bool
    """Whether the last bits of a row's logits depend on how it is computed: alone, in a batch, with which product."""
    in_parts: bool
    """Whether the last prompt was read in parts, the first of them while earlier text was written."""

    def start(self, prompts: list[list[int]], max_new: int) -> Tensor:
        """Read at most `MOST_ROWS` prompts, each of which gets up to ``max_new`` tokens; logits float32[B, V]."""

    def step(self, rows: list[int], tokens: list[int]) -> Tensor:
        """Add one token to each of ``rows``; logits float32[len(rows), V]."""

    def reread(self, ids: list[int]) -> Tensor:
        """Logits float32[V] after ``ids``, read at once: the same for a row alone and in a batch."""
