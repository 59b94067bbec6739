"""What does a training loop work with?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.config.model import Config
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.progress import Progress
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.keeping.record import Metrics
from pretrain_cli.training.keeping.state import RunState
from pretrain_cli.training.measuring.clock import RunClock
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.order import RowOrder


@dataclass
class Job:
    """Everything that one start of a run works with.

    ``report`` receives each line of metrics (tracking, the screen); ``sample`` writes texts during training.
    """

    config: Config
    plan: Plan
    run: RunFolder
    progress: Progress
    train_rows: PackedDataset
    validation_rows: PackedDataset | None
    order: RowOrder
    workers: int
    clock: RunClock
    state: RunState
    metrics: Metrics
    stop: StopRequests
    tokens_per_byte: float | None
    flops_per_token: float
    peak_flops: float
    report: list[Callable[[int, dict[str, float]], None]] = field(default_factory=list)
    sample: Callable[[int], None] | None = None
    sample_s: float | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def batch_rows(self) -> int:
        """Rows of one optimizer step over all processes."""
        return self.plan.batch_rows_per_process * self.world_size

    @property
    def by_clock(self) -> bool:
        """Whether only the clock ends the run."""
        return bool(self.plan.seconds) and not self.plan.steps
