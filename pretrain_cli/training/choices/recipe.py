"""Holds the rates, batches and lengths that learn most in the time given, each number with its source.

"Measured" is `benchmarks/learning.py` on two CPU cores; docs/concepts/recipe-measurements.md has the tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_MINUTES = 10.0
"""On a CPU, where no budget is given: about as long as a person waits."""
MOST_PASSES, BASE_PASSES = 4.0, 1.0
"""Passes over the same text that still teach (Muennighoff et al. 2023, arXiv 2305.16264), and those of a base where no
budget is given."""
SHORT_TEXT_TOKENS, SHORT_TEXT_PASSES = 1_000_000, 3.0
"""Below so many tokens a fourth pass learns the text by heart: held-out bits per byte of 1.38 against 1.35 after the
third, at 240,000 tokens (measured)."""
TINY_TEXT_TOKENS, TINY_TEXT_RATE = 100_000, 0.5
"""So do high rates: 1.73 with half of them against 1.77, at 46,000 tokens and three passes (measured)."""

SMALL_BATCH_TOKENS = 2048
"""8 rows of 256: the best run of 90 s (measured)."""
LARGEST_BATCH_TOKENS = 524_288
"""That of GPT-3's smallest model (Brown et al. 2020, arXiv 2005.14165, table 2.1)."""
STEPS_BEFORE_A_LARGER_BATCH = 4000
"""Late in a long run larger batches cost nothing: where "late" begins is chosen, not measured."""
BASE_BATCH_TOKENS, LEAST_BATCH_TOKENS, LEAST_STEPS = 4096, 512, 60
"""A base takes larger batches, as long as the budget pays for this many steps (chosen, not measured)."""

WIDTH = 128
"""The hidden size at which the rates below were measured; wider models take them times √(128 / hidden), between none
and muP's 128 / hidden (Yang et al. 2022, arXiv 2203.03466): chosen, not measured."""
MUON_RATE, MUON_MATRIX_RATE, MUON_EMBEDDING_RATE = 0.05, 0.03, 0.25
"""Head and norms, matrices, embedding: 1.93 bits per byte after half a million tokens, against 2.02 with 0.01, 0.04
and 0.01 (measured)."""
MUON_BETA1 = 0.8
"""First moment decay of the weights beside muon's: 1.91 bits per byte against 1.93 with 0.9 (measured)."""
MUON_BETA2 = 0.98
"""Their second moment's: 1.824 bits per byte after a million tokens, against 1.841 with 0.95 (measured)."""
ADAMW_RATE, ADAMW_EMBEDDING_RATE = 4e-3, 4e-3
"""Twice as much learns the same, half as much less (measured)."""
LARGE_BATCH_TOKENS, MOST_FOR_THE_BATCH = 32_768, 2.0
"""Above so many tokens a step the rates grow with the square root of the batch (Malladi et al. 2022, arXiv 2205.10287),
at most to twice: as far as a higher rate was seen to learn the same. Where it begins is chosen, not measured."""
BASE_RATE, BASE_PARAMETERS = 1e-4, 1.35e8
"""A base is re-warmed to this rate, as Ibrahim et al. 2024 (arXiv 2403.08763) do, and larger ones to less."""
LORA_RATE = 10.0
"""Times the rate of full training, at any rank (Schulman et al. 2025, "LoRA Without Regret"). SmolLM2-135M on a novel,
24 steps of one row, one seed: 1.441 bits per byte with it at rank 16, 1.454 with five times."""
WARMUP_SHARE, WARMUP_LIMIT, WARMUP_FROM = 0.02, 1000, 20
"""Share of the steps, steps at most, and the least steps of a run that warms up at all: runs with and without it learn
the same at a hundred steps (measured); it is kept for longer ones."""


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, and the moment decay that goes with them.

    Attributes:
        main: of all weights under AdamW but the embedding: under muon the head and the norms.
        matrix: of the matrices under muon.
        embedding: of the input embedding, where it isn't tied to the head; a row of it moves only when its token came.
        beta1: AdamW's first moment decay.
        beta2: its second moment's.
    """

    main: float
    matrix: float
    embedding: float
    beta1: float = 0.9
    beta2: float = 0.95


def choose_passes(text_tokens: int, base: bool) -> float:
    """Passes over the text that a run takes at most, where the user doesn't say."""
    return SHORT_TEXT_PASSES if text_tokens < SHORT_TEXT_TOKENS and not base else MOST_PASSES


def choose_rates(
    optimizer: str,
    hidden: int,
    text_tokens: int,
    base_parameters: int = 0,
    adapter: bool = False,
    batch_tokens: int = 0,
) -> Rates:
    """The rates for a model from scratch of this width on this much text, or for a base of this many weights.

    Args:
        optimizer: "muon", or any other for AdamW's rates.
        hidden: width of the model.
        text_tokens: of one pass.
        base_parameters: 0 from scratch.
        adapter: LoRA's matrices are trained, not the base.
        batch_tokens: of one optimizer step.
    """
    larger = factor_for_batch(batch_tokens)
    if base_parameters:
        rate = (
            larger * BASE_RATE * min(1.0, (BASE_PARAMETERS / base_parameters) ** 0.5) * (LORA_RATE if adapter else 1.0)
        )
        return Rates(rate, 10 * rate, rate)
    factor = larger * min(1.0, (WIDTH / hidden) ** 0.5) * (TINY_TEXT_RATE if text_tokens < TINY_TEXT_TOKENS else 1.0)
    if optimizer == "muon":
        rates = MUON_RATE * factor, MUON_MATRIX_RATE * factor, MUON_EMBEDDING_RATE * factor
        return Rates(*rates, beta1=MUON_BETA1, beta2=MUON_BETA2)
    return Rates(ADAMW_RATE * factor, MUON_MATRIX_RATE * factor, ADAMW_EMBEDDING_RATE * factor)


def factor_for_batch(batch_tokens: int) -> float:
    """Times which rates a batch of so many tokens takes."""
    return min(MOST_FOR_THE_BATCH, math.sqrt(max(1.0, batch_tokens / LARGE_BATCH_TOKENS)))


def choose_warmup(expected_steps: int) -> int:
    """Steps from zero to the peak rate: a share of the run's, so that a larger batch warms up on as many tokens."""
    if expected_steps < WARMUP_FROM:
        return 0
    return min(WARMUP_LIMIT, max(1, round(WARMUP_SHARE * expected_steps)))


def choose_batch_tokens(tokens: float, base: bool, least: int) -> tuple[int, str]:
    """(tokens of one optimizer step, why).

    Args:
        tokens: that the whole run will see.
        base: whether it continues a base.
        least: tokens in one row on each process.
    """
    if base:
        wanted, reason = BASE_BATCH_TOKENS, "enough for a steady gradient"
        while tokens / wanted < LEAST_STEPS and wanted > max(LEAST_BATCH_TOKENS, least):
            wanted, reason = wanted // 2, f"small, so that the time is enough for about {LEAST_STEPS} steps"
        if tokens / wanted < LEAST_STEPS:
            reason = "the smallest that ptk chooses: the time is enough for few steps"
        return wanted, reason
    wanted, reason = SMALL_BATCH_TOKENS, "small batches learn most from few tokens"
    while tokens / wanted > STEPS_BEFORE_A_LARGER_BATCH and wanted < LARGEST_BATCH_TOKENS:
        wanted, reason = wanted * 2, f"the run would take over {STEPS_BEFORE_A_LARGER_BATCH} steps with less"
    return wanted, reason
