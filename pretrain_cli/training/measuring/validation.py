"""How much held-out text is scored during a run, what does it cost, and which step was the best?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from pretrain_cli.training.job import Job
from pretrain_cli.training.measuring.clock import FORWARD_SHARE, VALIDATION_SHARE
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.scoring import Validation, validate

FINAL_VALIDATION = 10
"""The validation at the end takes this many times ``train.eval_rows``."""


class Validator:
    """Validates within the run's time, and remembers the best.

    Args:
        job: holds the rows and the state.
        device: where the model is.
        meter: tells what a step costs.
    """

    def __init__(self, job: Job, device: torch.device, meter: Meter) -> None:
        self.job, self.device, self.meter = job, device, meter
        self._seconds_per_row = 0.0

    def run(
        self, model: Any, rows: int, seconds: float = math.inf, scored: Callable[[int], None] = lambda rows: None
    ) -> Validation | None:
        """Loss on ``rows`` held-out rows, or what ``seconds`` allow; None where there are none, or a signal came.

        ``scored`` is told from time to time how many rows are done.
        """
        job = self.job
        if job.validation_rows is None:
            return None
        began = time.monotonic()
        found = validate(
            model,
            job.validation_rows,
            rows=rows,
            batch_rows=job.plan.micro_batch,
            device=self.device,
            tokens_per_byte=job.tokens_per_byte,
            rank=job.rank,
            world_size=job.world_size,
            stop=lambda: job.stop.requested is not None,
            seconds=seconds,
            scored=scored,
        )
        if found is not None:
            self._seconds_per_row = (time.monotonic() - began) / max(1, found.rows)
        return found

    def measure(self, model: Any, line: dict[str, float]) -> bool:
        """Validate in the middle of the run and put the result into ``line``; False where a signal broke it off."""
        job, state = self.job, self.job.state
        with job.progress.doing("validating"):
            found = self.run(model, self.rows_now())
        if found is None:
            return job.validation_rows is None
        line.setdefault("step", state.step)
        line["validation_loss"] = found.loss
        if found.bits_per_byte is not None:
            line["validation_bits_per_byte"] = found.bits_per_byte
        state.validation_loss = found.loss
        if state.best_loss is None or found.loss < state.best_loss:
            state.best_loss, state.best_step, state.evaluations_without_gain = found.loss, state.step, 0
        else:
            state.evaluations_without_gain += 1
        if job.sample is not None:
            job.sample(state.step)
        return True

    def make_up(self, model: Any) -> None:
        """Validate where a signal had kept the run from it, and put the result into that step's line."""
        line: dict[str, float] = {"step": self.job.state.step}
        self.job.state.owes_validation = not self.measure(model, line)
        self.job.metrics.amend(line)
        self.meter.restart()

    def rows_at_the_end(self) -> int:
        """Rows of the last validation; in a timed run no more than fit its share of the budget."""
        wanted = FINAL_VALIDATION * self.job.config.train.eval_rows
        budget, per_row = self.job.clock.budget_s, self.row_seconds()
        if budget is not None and per_row > 0:
            wanted = min(wanted, max(1, int(VALIDATION_SHARE * budget / per_row)))
        return wanted

    def rows_now(self) -> int:
        """Rows of a validation during training."""
        held_out = len(self.job.validation_rows) if self.job.validation_rows is not None else 0
        return min(self.job.config.train.eval_rows, self.rows_at_the_end(), held_out)

    def row_seconds(self) -> float:
        """What one row costs: measured, or guessed from a step."""
        return self._seconds_per_row or FORWARD_SHARE * self.meter.step_seconds / self.job.batch_rows

    def seconds_at_the_end(self) -> float:
        """What the last validation will take, and the samples after it where that is known."""
        if self.job.validation_rows is None:
            return 0.0
        rows = min(self.rows_at_the_end(), len(self.job.validation_rows))
        return rows * self.row_seconds() + (self.job.sample_s or 0.0)
