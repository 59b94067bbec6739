"""After which steps does a run validate, save and stop?"""

from __future__ import annotations

import time

from pretrain_cli.training.job import Job
from pretrain_cli.training.keeping.saving import Saver
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.validation import Validator
from pretrain_cli.training.processes.agreement import agree

LEAST_INTERVAL = 20.0
"""A checkpoint or validation that nobody asked for waits until this many times its cost has passed: 5 % of the time."""


class Pace:
    """Decides by steps and by the clock; on several processes by rank 0's clock."""

    def __init__(self, job: Job, meter: Meter, validator: Validator, saver: Saver) -> None:
        self.job = job
        self.meter, self.validator, self.saver = meter, validator, saver
        self._tenths = dict.fromkeys(("save", "eval"), self._tenth())
        self._done_at = dict.fromkeys(("save", "eval"), time.monotonic())

    def why_end(self) -> str:
        """Why the run ends after this step: "signal", "steps", "time", "early stopping"; empty: it goes on."""
        job = self.job
        if job.clock.budget_s is not None:
            job.clock.reserve(self.validator.seconds_at_the_end(), self.saver.estimate_s())
        if job.stop.heard:
            return "signal"
        if job.plan.steps and job.state.step >= job.plan.steps:
            return "steps"
        if job.clock.budget_s is not None and agree(job.clock.over(self.meter.step_seconds)):
            return "time"
        if (patience := job.config.train.early_stopping) and job.state.evaluations_without_gain >= patience:
            return "early stopping"
        return ""

    def due(self, what: str) -> bool:
        """Whether to ``"save"`` or to ``"eval"`` after this step."""
        every = self.job.plan.save_every if what == "save" else self.job.plan.eval_every
        setting = getattr(self.job.config.train, f"{what}_steps")
        if every is None:
            tenth, before = self._tenth(), self._tenths[what]
            self._tenths[what] = tenth
            due = tenth > before
        else:
            due = every > 0 and self.job.state.step % every == 0
        wanted = setting != "auto" or (what == "eval" and self.job.config.train.early_stopping)
        if wanted and every is not None:  # the same on every process
            return due
        return agree(due and (bool(wanted) or self._worth(what)))

    def _worth(self, what: str) -> bool:
        """Whether what nobody asked for costs little against the time since it was last done."""
        if what == "save":
            cost = self.saver.estimate_s() / 2
        else:
            cost = self.validator.rows_now() * self.validator.row_seconds()
        now = time.monotonic()
        worth = now - self._done_at[what] >= LEAST_INTERVAL * cost
        if worth:
            self._done_at[what] = now
        return worth

    def _tenth(self) -> int:
        return int(10 * self.job.clock.share())
