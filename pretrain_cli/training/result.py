"""How did a run end?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. ``seconds`` counts all starts of the run; losses are nats per token.

    ``train_loss`` is that of the last line of metrics.jsonl, ``first_loss`` that of the first.
    ``model_step`` is the step whose weights the model has, where early stopping took an earlier one than the last.
    """

    run: str
    status: str
    steps: int
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    validation_bits_per_byte: float | None
    tokens_per_second: float
    seconds: float
    model: Path
    first_loss: float | None = None
    peak_memory_bytes: int = 0
    model_step: int | None = None


def finite(value: float | None) -> float | None:
    """``value``, or None where it is no number."""
    return value if value is not None and math.isfinite(value) else None
