"""What the commands about runs give: plain records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pretrain_cli.run_record import RunRecord, RunStatus

Curve = list[tuple[int, float]]
"""(step, value) of each logged line that has the value."""


@dataclass(frozen=True)
class RunSummary:
    """One run in a list.

    Attributes:
        planned_steps: as announced; None where they weren't recorded.
        train_loss, validation_loss: the last of each; None where none was measured.
        bits_per_byte: of held-out rows, as training measured it last; runs are ranked by it.
        evaluated_bits_per_byte: of all held-out rows, as the run's evaluation has it; None where there is none.
        validation_rows: that ``bits_per_byte`` of a finished run was measured on.
        seconds: of training; None where no step was logged.
        wandb: the run's address at W&B, or the folder that `wandb sync` sends.
        outcome: in words, where the run was cut short, undertrained or overfit.
        data: fingerprint of the rows that it was trained on.
        damage: a sentence, where a record that these figures are of isn't as ptk wrote it; otherwise empty.
    """

    name: str
    started: str
    status: RunStatus | Literal["killed"]
    base: str
    steps: int
    planned_steps: int | None
    tokens: int
    train_loss: float | None
    validation_loss: float | None
    bits_per_byte: float | None
    evaluated_bits_per_byte: float | None
    validation_rows: int | None
    seconds: float | None
    bytes_on_disk: int
    wandb: str
    outcome: str
    data: str
    damage: str = ""


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
    """Runs side by side.

    Attributes:
        runs: in the order that they were named.
        verdict: which is best by the figure that can be compared, in a sentence.
        differences: config key that differs → its value in each run.
        curves: metric → run → curve by step.
        samples: prompt → run → what it wrote last.
        sample_steps: prompt → run → the step at which it wrote that.
        page: the same as one HTML file; None where it can't be written.
        warnings: what was said while it was written.
    """

    runs: list[RunSummary]
    verdict: str
    differences: dict[str, tuple[Any, ...]]
    curves: dict[str, dict[str, Curve]]
    samples: dict[str, dict[str, str]]
    sample_steps: dict[str, dict[str, int]]
    page: Path | None = None
    warnings: list[str] = field(default_factory=list)
