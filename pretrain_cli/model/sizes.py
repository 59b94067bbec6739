"""Lists the shapes of models from scratch, and chooses the one that suits a text and a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pretrain_cli.errors import ConfigError

if TYPE_CHECKING:
    from pretrain_cli.model.devices import Choice

HEAD_SIZE = 64
MLP_RATIO = 3
"""Width of the gated MLP over the hidden size: 8/3 (Shazeer 2020, arXiv 2002.05202), rounded up to a whole number."""
TIE_ABOVE_VOCABULARY = 20_000
"""An untied head gains 0.03 bits per byte at 4,096 entries (measured); above this it would be most of a small model."""
UNTIE_ABOVE_HIDDEN = 1024
DEEPEST = 200
HIDDEN_PER_LAYER = 48
"""Width per layer of a depth that has no named size, rounded to whole heads: the named sizes have 32 to 64."""
TOKENS_PER_PARAMETER = 2.0
"""A larger size is chosen when the time is enough for this many tokens per parameter in its matrices. In equal time, 2
layers of 128 lead 4 by 0.05 bits per byte where the 4 see 0.9, and are level where they see 1.9 (measured)."""
LEAST_TEXT_PER_PARAMETER = 0.6
"""Where the time is enough for the text, the chosen size sees at least this many tokens per parameter. From 1 MB in
three passes, 4 layers with 0.65 learn 0.01 more than 2, and 0.02 more than 6 of 256 with 0.13 (measured)."""
ENOUGH_FOR_THE_TEXT = 0.7
"""The text counts as the limit when the time is enough for this share of it: the estimate may be off."""


@dataclass(frozen=True)
class Shape:
    """A size; heads have 64 dimensions, the gated MLP is three times the hidden size."""

    name: str
    layers: int
    hidden: int

    @property
    def heads(self) -> int:
        return max(1, self.hidden // HEAD_SIZE)

    @property
    def mlp(self) -> int:
        return MLP_RATIO * self.hidden

    def matrix_parameters(self, vocab_size: int) -> int:
        """Weights that each token is multiplied with: attention, MLP and head, without the embedding."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.mlp
        return self.layers * layer + vocab_size * self.hidden

    def tied(self, vocab_size: int) -> bool:
        """Whether embedding and head share their weights."""
        return vocab_size > TIE_ABOVE_VOCABULARY and self.hidden < UNTIE_ABOVE_HIDDEN

    def parameters(self, vocab_size: int) -> int:
        """All weights but the norms'."""
        return self.matrix_parameters(vocab_size) + (0 if self.tied(vocab_size) else vocab_size * self.hidden)

    def flops_per_token(self, vocab_size: int, sequence_length: int) -> float:
        """Floating-point operations to train on one token: 6 per weight (Kaplan et al. 2020), and attention."""
        attention = 12 * self.layers * self.hidden * sequence_length / 2
        return 6.0 * self.matrix_parameters(vocab_size) + attention


SIZES = (
    Shape("micro", 2, 128),
    Shape("tiny", 4, 128),
    Shape("mini", 6, 256),
    Shape("small", 8, 384),
    Shape("base", 12, 512),
    Shape("medium", 12, 768),
    Shape("large", 24, 1024),
)


def named_shape(size: str, layers: int | None = None) -> Shape:
    """The shape called ``size``, or with that many layers; ``layers`` replaces its number of layers where given.

    Of several shapes with that many layers, the smallest is used; where there is none, the width is in proportion.

    Raises:
        ConfigError: there is no such size.
    """
    depth = int(size) if size.isdecimal() else 0
    for shape in SIZES:
        if size == shape.name or depth == shape.layers:
            return shape if layers is None else replace(shape, layers=layers)
    if not 1 <= depth <= DEEPEST:
        names = ", ".join(shape.name for shape in SIZES)
        raise ConfigError(
            f"There is no model size '{size}'.", f"Sizes: auto, {names}, or a number of layers up to {DEEPEST}."
        )
    hidden = HEAD_SIZE * max(1, round(depth * HIDDEN_PER_LAYER / HEAD_SIZE))
    return Shape(size, layers or depth, hidden)


def choose_shape(
    affordable: Callable[[Shape, float], float],
    vocab_size: int,
    layers: int | None = None,
    tokens: float = float("inf"),
    tokens_of: str = "text",
) -> Choice[Shape]:
    """The largest size that time and text are enough for.

    Args:
        affordable: the tokens that a shape can train on in the time; it may stop counting below its second argument.
        vocab_size: ids of the tokenizer.
        layers: replaces the size's number of layers.
        tokens: training tokens at most: those of all passes over the text, or fewer where the budget names them.
        tokens_of: what sets ``tokens``, for the reason.
    """
    from pretrain_cli.model.devices import Choice  # imports torch, which the names of the sizes don't need

    chosen, paid_for_it = SIZES[0], 0.0
    for shape in SIZES[1:]:
        weights = shape.matrix_parameters(vocab_size)
        wanted = min(TOKENS_PER_PARAMETER * weights, ENOUGH_FOR_THE_TEXT * tokens)
        if tokens < LEAST_TEXT_PER_PARAMETER * weights or (paid := affordable(shape, wanted)) < wanted:
            break  # a larger one takes more of both
        chosen, paid_for_it = shape, paid
    if chosen is SIZES[0]:
        paid_for_it = affordable(chosen, 0.0)
    seen = min(tokens, paid_for_it) / chosen.matrix_parameters(vocab_size)
    limit = tokens_of if tokens < paid_for_it else "time"
    why = f"the {limit} is too short for more" if chosen is SIZES[0] else f"the largest that the {limit} is enough for"
    shape = chosen if layers is None else replace(chosen, layers=layers)
    return Choice(shape, f"{why}: about {seen:.2g} tokens per weight in its matrices")
