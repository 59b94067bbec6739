"""What a generation gives: plain records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

ALTERNATIVES = 5
"""Most probable tokens kept with each written one."""

OnText = Callable[[int, str], None]
"""Called with a sample's index and each piece of its text as soon as it is complete."""


@dataclass(frozen=True)
class TokenProbability:
    """One written token, its probability under the model, and the most probable ones there as (text, probability)."""

    id: int
    text: str
    probability: float
    alternatives: list[tuple[str, float]]


@dataclass(frozen=True)
class GeneratedText:
    """One sample: what was written after ``prompt``, and before ``suffix`` where there is one.

    ``finish``: it ended by "eos", "stop", "length" (max_tokens) or "context" (the model's limit).
    """

    prompt: str
    text: str
    tokens: int
    seconds_to_first_token: float
    tokens_per_second: float
    finish: str = "length"
    seed: int = 0
    model: str = ""
    suffix: str = ""
    ids: list[int] = field(default_factory=list)
    probabilities: list[TokenProbability] = field(default_factory=list)


@dataclass(frozen=True)
class GenerateResult:
    """All samples, prompt by prompt."""

    samples: list[GeneratedText]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values; probabilities only where they were asked for."""
        samples = [asdict(sample) for sample in self.samples]
        for sample in samples:
            del sample["ids"]
            if not sample["probabilities"]:
                del sample["probabilities"]
        return {"samples": samples, "warnings": self.warnings}
