"""What the commands about runs give: plain records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain_cli.run_record import RunRecord

Curve = list[tuple[int, float]]
"""(step, value) of each logged line that has the value."""


@dataclass(frozen=True)
class RunSummary:
    """One run in a list.

    Attributes:
        loss: the last validation loss, or the last training loss where none was measured.
        seconds: of training; None where no step was logged.
        wandb: the run's address at W&B, or the folder that `wandb sync` sends.
    """

    name: str
    started: str
    status: str
    base: str
    steps: int
    tokens: int
    loss: float | None
    bits_per_byte: float | None
    seconds: float | None
    bytes_on_disk: int
    wandb: str


@dataclass(frozen=True)
class RunDetails:
    """Everything about one run: ``config`` as it stands in its file, ``last`` the last line of metrics.jsonl."""

    summary: RunSummary
    record: RunRecord
    config: dict[str, Any]
    last: dict[str, Any]
    checkpoints: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "summary": asdict(self.summary),
            "record": self.record.model_dump(mode="json"),
            "config": self.config,
            "last": self.last,
            "checkpoints": self.checkpoints,
        }


@dataclass(frozen=True)
class RunComparison:
    """Two runs: the config keys that differ (key → first, second), and their curves (metric → run → curve).

    ``page`` is the same as one HTML file.
    """

    first: RunSummary
    second: RunSummary
    differences: dict[str, tuple[Any, Any]]
    curves: dict[str, dict[str, Curve]]
    page: Path
