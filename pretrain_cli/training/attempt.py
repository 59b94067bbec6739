"""One attempt of a run: from a checkpoint, or the beginning, to the end or to a divergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.keeping.metrics import Metrics
from pretrain_cli.training.keeping.state import RunState
from pretrain_cli.training.measuring.clock import RunClock
from pretrain_cli.training.measuring.samples import SampleWriter
from pretrain_cli.training.rows.order import RowOrder


@dataclass(frozen=True)
class Attempt:
    """What changes where a run goes back to a checkpoint; everything else is in ``context``.

    Attributes:
        context: of this start of the run.
        state: the counters, which each step moves on.
        order: which rows come when.
        clock: how much of the budget is used.
        metrics: metrics.jsonl.
        reports: receive each line of metrics: the screen, a tracker.
        sampler: writes texts during training, where that is asked for.
    """

    context: TrainingContext
    state: RunState
    order: RowOrder
    clock: RunClock
    metrics: Metrics
    reports: tuple[Callable[[int, Mapping[str, float]], None], ...]
    sampler: SampleWriter | None

    def sample(self) -> None:
        """Write samples of this step, where they are asked for."""
        if self.sampler is not None:
            self.sampler.write(self.state.step)
