"""Scores points on the line from a base to a run, and says which keeps most of the gain and forgets least."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.evaluation.results import BlendLine, BlendPoint, ModelScores
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.evaluation.texts import GENERAL
from pretrain_cli.model.blending import Part, blend_folders, check_parts
from pretrain_cli.model.names import NamedModel, open_folders
from pretrain_cli.storage import temporary_folder


def check_line(config: Config, named: Sequence[NamedModel], texts: Sequence[Text]) -> None:
    """The points of ``evaluate.blend`` lie between two models, and there are two texts to weigh them by.

    Raises:
        ConfigError: there is no base, a third model, or no text of one of the two kinds.
    """
    if not config.evaluate.blend:
        return
    if len(named) != 2:
        raise ConfigError(
            "--blend scores points between a run and its base, and needs both.",
            "Name one run that continued a base, or two models: ptk evaluate RUN BASE --blend 0,0.5,1",
        )
    if not any(text.name == GENERAL for text in texts) or len(texts) < 2:
        raise ConfigError(
            "--blend weighs what is gained on a text against what is forgotten of general English.",
            "Score both: --on validation --on general",
        )


def points_between(config: Config) -> list[float]:
    """The weights of the run at the points that are neither of the two models."""
    return sorted({point for point in config.evaluate.blend if 0 < point < 1})


@contextlib.contextmanager
def blended(run: NamedModel, base: NamedModel, weight: float, artifacts: Artifacts) -> Iterator[NamedModel]:
    """The model at ``weight`` on the line, on the disk for as long as the block lasts.

    Raises:
        ModelError: the two don't fit each other.
    """
    parts = _parts(run, base, weight, artifacts)
    widest = check_parts(parts)
    with temporary_folder(artifacts.root, "blend") as staging:
        folder = staging / "model"
        blend_folders(parts, widest, folder)
        yield NamedModel(f"{run.name} at {weight:g}", str(folder), str(widest.tokenizer))


def check_blendable(run: NamedModel, base: NamedModel, artifacts: Artifacts) -> None:
    """Raise ModelError where the two don't fit each other: said before anything is scored."""
    check_parts(_parts(run, base, 0.5, artifacts))


def _parts(run: NamedModel, base: NamedModel, weight: float, artifacts: Artifacts) -> list[Part]:
    parts = []
    for named, share in ((run, weight), (base, 1 - weight)):
        location, tokenizer = open_folders(named, artifacts)
        parts.append(Part(named.name, Path(location), tokenizer, share))
    return parts


def draw_line(run: ModelScores, base: ModelScores, between: dict[float, ModelScores]) -> BlendLine:
    """Gain and loss of each point against the base; the best gains most after what it forgets is taken off.

    Args:
        run: at 1.
        base: at 0.
        between: weight of the run → the scores there.
    """
    target = next(text.name for text in run.texts if text.name != GENERAL)
    start, general = _bits(base, target), _bits(base, GENERAL)
    points = [
        BlendPoint(weight, scores.name, start - _bits(scores, target), _bits(scores, GENERAL) - general)
        for weight, scores in sorted({0.0: base, **between, 1.0: run}.items())
    ]
    return BlendLine(target, points, max(points, key=lambda point: point.gain - max(0.0, point.forgotten)).weight)


def _bits(scores: ModelScores, text: str) -> float:
    return next(found.bits_per_byte for found in scores.texts if found.name == text)
