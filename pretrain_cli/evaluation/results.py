"""What an evaluation gives: plain records that the command line, report.json and report.html show."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TextScore:
    """One model on one text. Intervals are 95%, (low, high); None where there is too little text for one.

    ``lost_characters`` don't come back from the model's tokenizer; ``unknown_tokens`` stand for what it doesn't know.
    """

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
    lost_characters: int = 0
    unknown_tokens: int = 0


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
class BlendPoint:
    """A point between a base and a run, in bits per byte against the base.

    Attributes:
        weight: of the run; the base has the rest.
        model: its name among the models.
        gain: on the text that was learned; above 0 it is better than the base.
        forgotten: on general English; above 0 it is worse than the base.
    """

    weight: float
    model: str
    gain: float
    forgotten: float


@dataclass(frozen=True)
class BlendLine:
    """The points from base to run. ``text``: what the gain is on; ``best``: weight with the most gain less forgetting.

    A point that forgets nothing has nothing taken off its gain.
    """

    text: str
    points: list[BlendPoint]
    best: float

    @property
    def sentence(self) -> str:
        """What the best point keeps and costs, in words."""
        best = next(point for point in self.points if point.weight == self.best)
        whole = self.points[-1]
        kept = f", {best.gain / whole.gain:.0%} of the run's gain" if whole.gain > 0 and best.weight < 1 else ""
        return (
            f"The best point is {best.weight:g}: {best.gain:+.4f} gained on {self.text}{kept}, {best.forgotten:+.4f} "
            f"forgotten of general English (the run itself: {whole.gain:+.4f} and {whole.forgotten:+.4f})"
        )


@dataclass(frozen=True)
class ChatScores:
    """What one model does with the packaged instructions. Intervals are 95%, (low, high), over the instructions.

    Attributes:
        name: of the model.
        instructions: that it was given.
        followed: of them, as a program checks.
        share_interval: of followed over instructions.
        bits_per_byte: of the base's own greedy answers; more than the base's own figure: it would answer otherwise.
        bits_per_byte_interval: of that.
        kept: of each instruction in order, whether it is followed.
        answers: the first ones, with their prompts.
    """

    name: str
    instructions: int
    followed: int
    share_interval: tuple[float, float]
    bits_per_byte: float
    bits_per_byte_interval: tuple[float, float]
    kept: list[bool] = field(default_factory=list)
    answers: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ChatChange:
    """A model minus the base: share of instructions followed, and bits per byte of the base's answers."""

    name: str
    share: float
    share_interval: tuple[float, float]
    bits_per_byte: float
    bits_per_byte_interval: tuple[float, float]


@dataclass(frozen=True)
class ChatResult:
    """What is left of a base that chats. ``reference`` is that base, the last of ``models``."""

    reference: str
    models: list[ChatScores]
    changes: list[ChatChange]

    @property
    def sentences(self) -> list[str]:
        """Each model's figures in words, then how it differs from the base."""
        told = []
        for scores in self.models:
            low, high = scores.share_interval
            told.append(
                f"chat: {scores.name} follows {scores.followed} of {scores.instructions} instructions ({low:.0%} to "
                f"{high:.0%}); {self.reference}'s own answers take it {scores.bits_per_byte:.4f} bits per byte"
            )
        for change in self.changes:
            share, bits = change.share_interval, change.bits_per_byte_interval
            told.append(
                f"chat: {change.name} against {self.reference}: {change.share:+.0%} of the instructions (95% interval "
                f"{share[0]:+.0%} to {share[1]:+.0%}), {change.bits_per_byte:+.4f} bits per byte ({bits[0]:+.4f} to "
                f"{bits[1]:+.4f})"
            )
        return told


@dataclass(frozen=True)
class EvaluateResult:
    """Everything. ``report`` is report.json, ``page`` report.html; ``held_out``: what the text "validation" is of.

    ``blend``: the points of `--blend`; ``chat``: the answers of `--chat`.
    """

    models: list[ModelScores]
    comparison: list[Comparison]
    report: Path
    page: Path
    seconds: float
    warnings: list[str] = field(default_factory=list)
    samples: list[SampleTexts] = field(default_factory=list)
    held_out: str = ""
    blend: BlendLine | None = None
    chat: ChatResult | None = None

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
            "chat": asdict(self.chat) if self.chat is not None else None,
            "blend": asdict(self.blend) | {"sentence": self.blend.sentence} if self.blend is not None else None,
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
