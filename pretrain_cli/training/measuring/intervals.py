"""Decides after which steps a run validates, saves and stops."""

from __future__ import annotations

import time

from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.saving import Saver
from pretrain_cli.training.measuring.forecast import worth_doing
from pretrain_cli.training.measuring.meter import Meter
from pretrain_cli.training.measuring.validation import Validator
from pretrain_cli.training.processes.agreement import agree


class Intervals:
    """Decides by steps and by the clock; on several processes by rank 0's clock."""

    def __init__(self, attempt: Attempt, meter: Meter, validator: Validator, saver: Saver) -> None:
        self.attempt = attempt
        self.meter, self.validator, self.saver = meter, validator, saver
        self._tenths = dict.fromkeys(("save", "eval"), self._tenth())
        self._done_at = dict.fromkeys(("save", "eval"), time.monotonic())

    def why_end(self) -> str:
        """Why the run ends after this step: "signal", "steps", "time", "early stopping"; empty: it continues."""
        context, state, clock = self.attempt.context, self.attempt.state, self.attempt.clock
        if clock.budget_s is not None:
            clock.reserve(self.validator.seconds_at_the_end(), self.saver.estimate_s())
        if context.stop.heard:
            return "signal"
        if context.plan.steps and state.step >= context.plan.steps:
            return "steps"
        if clock.budget_s is not None and agree(clock.over(self.meter.step_seconds)):
            return "time"
        if (patience := context.config.train.early_stopping) and state.evaluations_without_gain >= patience:
            return "early stopping"
        return ""

    def due(self, what: str) -> bool:
        """Whether to ``"save"`` or to ``"eval"`` after this step."""
        plan, train = self.attempt.context.plan, self.attempt.context.config.train
        every = plan.save_every if what == "save" else plan.eval_every
        setting = train.save_steps if what == "save" else train.eval_steps
        if every is None:
            tenth, before = self._tenth(), self._tenths[what]
            self._tenths[what] = tenth
            due = tenth > before
        else:
            due = every > 0 and self.attempt.state.step % every == 0
        if not due:  # alike on every process: nobody has to ask
            return False
        wanted = setting != "auto" or (what == "eval" and train.early_stopping)
        if wanted and every is not None:  # the same on every process
            return True
        return agree(bool(wanted) or self._worth(what))

    def _worth(self, what: str) -> bool:
        """Whether what nobody asked for costs little against the time since it was last done."""
        if what == "save":
            cost = self.saver.estimate_s() / 2
        else:
            cost = self.validator.rows_now() * self.validator.row_seconds()
        now = time.monotonic()
        worth = worth_doing(cost, now - self._done_at[what])
        if worth:
            self._done_at[what] = now
        return worth

    def _tenth(self) -> int:
        return int(10 * self.attempt.clock.share())
