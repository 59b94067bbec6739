"""Says which row comes when in a run whose mixture of sources changes from stage to stage."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pretrain_cli.config.model import StageConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.formatting import exact, percent
from pretrain_cli.training.rows.shuffle import key_of, shuffled


@dataclass(frozen=True)
class Taking:
    """What one source gives to a stage: ``count`` rows of its ``rows``, after ``before`` in earlier stages."""

    name: str
    rows: range
    before: int
    count: int


@dataclass(frozen=True)
class Stage:
    """A stretch of the run's sequence of rows: ``size`` of them from place ``first`` on, of several sources."""

    first: int
    size: int
    parts: tuple[Taking, ...]


@dataclass(frozen=True)
class StagedRows:
    """The row at each place of a run, computed, never walked to: alike on any number of processes, and after a resume.

    A stage is a seeded permutation of the rows that its sources give to it. Each source is gone through in shuffled
    epochs of its own, which continue from stage to stage.

    Attributes:
        stages: in order; each begins with a step.
        seed: of the permutations.
    """

    stages: tuple[Stage, ...]
    seed: int

    def find(self, position: int) -> tuple[int, int, int]:
        """(number of the stage, place in it, its size) of a position in the run."""
        number = bisect_right(self.stages, position, key=lambda stage: stage.first) - 1
        stage = self.stages[number]
        return number, (position - stage.first) % stage.size, stage.size

    def row(self, number: int, place: int) -> int:
        """The row at ``place`` of stage ``number``."""
        stage = self.stages[number]
        at = shuffled(place, stage.size, key_of(self.seed, number))
        for index, part in enumerate(stage.parts):
            if at < part.count:
                epoch, own = divmod(part.before + at, len(part.rows))
                return part.rows[shuffled(own, len(part.rows), key_of(self.seed, epoch) * 1_009 + index + 1)]
            at -= part.count
        raise AssertionError("the parts of a stage add up to its size")

    def told(self, batch_rows: int) -> str:
        """In words: "steps 1 to 90 web 80%, books 20%; 91 to 100 books 100%"."""
        spans = []
        for stage in self.stages:
            first, last = stage.first // batch_rows + 1, (stage.first + stage.size) // batch_rows
            shares = [f"{part.name} {percent(part.count / stage.size)}" for part in stage.parts if part.count]
            spans.append(f"{exact(first)} to {exact(last)} {', '.join(shares)}")
        return f"steps {'; '.join(spans)}"

    def uses(self) -> dict[str, float]:
        """Source → how often each of its rows is used in the whole run."""
        taken: dict[str, float] = {}
        for stage in self.stages:
            for part in stage.parts:
                taken[part.name] = taken.get(part.name, 0.0) + part.count / len(part.rows)
        return taken


def plan_stages(
    wanted: Sequence[StageConfig], sources: Mapping[str, range], steps: int, batch_rows: int, seed: int
) -> StagedRows:
    """The stages of a run of ``steps`` steps of ``batch_rows`` rows each; ``sources``: name → its rows.

    Raises:
        ConfigError: a mixture names a source without rows, or a stage has no step.
    """
    total, done, first = sum(stage.share for stage in wanted), 0.0, 0
    before = dict.fromkeys(sources, 0)
    stages = []
    for number, stage in enumerate(wanted, start=1):
        done += stage.share
        last = round(steps * done / total)
        if last == first:
            raise ConfigError(
                f"Stage {number} of [[data.stages]] has no step of the run's {exact(steps)}.",
                "Train for more steps, or give the stage a larger share.",
            )
        size = (last - first) * batch_rows
        counts = _counts(_shares(stage, sources, number), size)
        parts = [Taking(name, sources[name], before[name], count) for name, count in counts.items()]
        for name, count in counts.items():
            before[name] += count
        stages.append(Stage(first * batch_rows, size, tuple(parts)))
        first = last
    return StagedRows(tuple(stages), seed)


def _shares(stage: StageConfig, sources: Mapping[str, range], number: int) -> dict[str, float]:
    """Source → its weight in the stage; the order is that of the sources, so that no spelling changes the rows."""
    if unknown := [name for name in stage.mixture if not sources.get(name)]:
        known = ", ".join(name for name, rows in sources.items() if rows)
        raise ConfigError(
            f"Stage {number} of [[data.stages]] names the source '{unknown[0]}', which has no training rows.",
            f"Sources with rows: {known}",
        )
    return {
        name: stage.mixture.get(name, 0.0) if stage.mixture else float(len(rows))
        for name, rows in sources.items()
        if rows
    }


def _counts(shares: Mapping[str, float], size: int) -> dict[str, int]:
    """``size`` rows by share; what rounding leaves goes to the largest remainders."""
    total = sum(shares.values())
    exactly = {name: size * share / total for name, share in shares.items()}
    counts = {name: int(value) for name, value in exactly.items()}
    by_rest = sorted(exactly, key=lambda name: counts[name] - exactly[name])
    for name in by_rest[: size - sum(counts.values())]:
        counts[name] += 1
    return counts
