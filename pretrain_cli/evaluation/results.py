"""What an evaluation gives: plain records that the command line, report.json and report.html show."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TextScore:
    """One model on one text. Intervals are 95%, (low, high); None where there is too little text for one."""

    name: str
    bits_per_byte: float
    loss: float
    perplexity: float
    accuracy: float
    accuracy_top5: float
    tokens: int
    bytes: int
    documents: int
    bits_per_byte_interval: tuple[float, float] | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    by_source: dict[str, float] = field(default_factory=dict)
    by_position: list[dict[str, float]] = field(default_factory=list)
    by_frequency: list[dict[str, float]] = field(default_factory=list)
    by_document: list[ScoredDocument] = field(default_factory=list)


@dataclass(frozen=True)
class ScoredDocument:
    """One model on one document."""

    name: str
    source: str
    opening: str
    bytes: int
    bits_per_byte: float


@dataclass(frozen=True)
class Memorization:
    """The share of ``passages`` passages that a model continues word for word."""

    share: float
    passages: int


@dataclass(frozen=True)
class ModelScores:
    """One model on all texts; ``settings`` says how it was scored."""

    name: str
    location: str
    parameters: int
    texts: list[TextScore]
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    memorization: dict[str, Memorization] = field(default_factory=dict)


@dataclass(frozen=True)
class ChangedDocument:
    """A document and its bits per byte under two models."""

    name: str
    opening: str
    first: float
    second: float

    @property
    def change(self) -> float:
        """Of the first model against the second."""
        return self.first - self.second


@dataclass(frozen=True)
class MetricDifference:
    """A metric of the first model minus the second's, over the same passages."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class SampleTexts:
    """A prompt, and how each model continues it: model → text."""

    prompt: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """Bits per byte of ``first`` minus ``second`` on one text; below 0 the first is better.

    ``metrics``: the differences of the other metrics, where both models cut the text into the same tokens.
    """

    text: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float] | None
    verdict: str
    changed: list[ChangedDocument] = field(default_factory=list)
    metrics: dict[str, MetricDifference] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in words, with its figures."""
        how_sure = f", 95% interval {self.interval[0]:+.4f} to {self.interval[1]:+.4f}" if self.interval else ""
        return (
            f"{self.text}: {self.first} against {self.second}: {self.verdict} "
            f"({self.difference:+.4f} bits per byte{how_sure})"
        )


@dataclass(frozen=True)
class EvaluateResult:
    """Everything. ``report`` is report.json, ``page`` report.html; ``held_out``: what the text "validation" is of."""

    models: list[ModelScores]
    comparison: list[Comparison]
    report: Path
    page: Path
    seconds: float
    warnings: list[str] = field(default_factory=list)
    samples: list[SampleTexts] = field(default_factory=list)
    held_out: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values only, as in report.json; what isn't finite is None, since JSON can't write it."""
        value = {
            "models": [asdict(model) for model in self.models],
            "comparison": [asdict(entry) | {"sentence": entry.sentence} for entry in self.comparison],
            "report": str(self.report),
            "page": str(self.page),
            "samples": [asdict(sample) for sample in self.samples],
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
            "held_out": self.held_out,
        }
        return finite(value)  # type: ignore[no-any-return]


def finite(value: Any) -> Any:
    """``value`` with every NaN and infinity replaced by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
