"""Validates within a run's time, and remembers the best step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.measuring.forecast import final_validation_rows, validation_row_seconds
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.scoring import Validation, validate
from pretrain_cli.training.step.rows_at_once import RowsAtOnce


class Validator:
    """Validates within the run's time, and remembers the best.

    Args:
        attempt: holds the rows and the state.
        device: where the model is.
        meter: tells what a step costs.
        at_once: how many rows the memory holds at once.
    """

    def __init__(self, attempt: Attempt, device: torch.device, meter: Meter, at_once: RowsAtOnce) -> None:
        self.attempt, self.device, self.meter, self.at_once = attempt, device, meter, at_once
        self._seconds_per_row = 0.0  # measured

    def run(
        self, model: nn.Module, rows: int, seconds: float = math.inf, scored: Callable[[int], None] = lambda rows: None
    ) -> Validation | None:
        """Loss on ``rows`` held-out rows, or what ``seconds`` allow; None where there are none, or a signal came.

        ``scored`` is told from time to time how many rows are done.
        """
        context = self.attempt.context
        if context.rows.validation is None:
            return None
        began = time.monotonic()

        def score() -> Validation | None:
            assert context.rows.validation is not None
            return validate(
                model,
                context.rows.validation,
                rows=rows,
                batch_rows=self.at_once.rows,
                device=self.device,
                tokens_per_byte=context.rows.validation_tokens_per_byte,
                rank=context.rank,
                world_size=context.world_size,
                stop=lambda: context.stop.requested is not None,
                seconds=seconds,
                scored=scored,
            )

        found = self.at_once.fitting(score)
        if found is not None:
            self._seconds_per_row = (time.monotonic() - began) / max(1, found.rows)
        return found

    def measure(self, model: nn.Module, line: dict[str, float]) -> bool:
        """Validate in the middle of the run and put the result into ``line``; False where a signal interrupted it."""
        context, state = self.attempt.context, self.attempt.state
        with context.progress.doing("validating"):
            found = self.run(model, self.rows_now())
        if found is None:
            return context.rows.validation is None
        line.setdefault("step", state.step)
        line["validation_loss"] = found.loss
        if found.bits_per_byte is not None:
            line["validation_bits_per_byte"] = found.bits_per_byte
        state.validation_loss = found.loss
        if state.best_loss is None or found.loss < state.best_loss:
            state.best_loss, state.best_step, state.evaluations_without_gain = found.loss, state.step, 0
        else:
            state.evaluations_without_gain += 1
        self.attempt.sample()
        return True

    def make_up(self, model: nn.Module) -> None:
        """Validate where a signal had kept the run from it, and put the result into that step's line."""
        line: dict[str, float] = {"step": self.attempt.state.step}
        self.attempt.state.owes_validation = not self.measure(model, line)
        self.attempt.metrics.amend(line)
        self.meter.restart()

    def rows_at_the_end(self) -> int:
        """Rows of the last validation; in a timed run no more than fit its share of the budget."""
        context = self.attempt.context
        return final_validation_rows(
            context.config.train.eval_rows, context.rows.held_out, self.attempt.clock.budget_s, self.row_seconds()
        )

    def rows_now(self) -> int:
        """Rows of a validation during training."""
        return min(self.attempt.context.config.train.eval_rows, self.rows_at_the_end())

    def row_seconds(self) -> float:
        """What one row costs: measured, or forecast from a step."""
        return self._seconds_per_row or validation_row_seconds(self.meter.step_seconds, self.attempt.context.batch_rows)

    def seconds_at_the_end(self) -> float:
        """What the last validation will take, and the samples after it where that is known."""
        if self.attempt.context.rows.validation is None:
            return 0.0
        sampler = self.attempt.sampler
        samples = sampler.seconds if sampler is not None and sampler.seconds is not None else 0.0
        return self.rows_at_the_end() * self.row_seconds() + samples
