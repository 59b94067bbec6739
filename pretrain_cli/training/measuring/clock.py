"""Keeps a run's time over all its starts, and tells when it must stop to end inside its budget."""

from __future__ import annotations

import math
import time

EXIT_SECONDS, MOST_SLOWER = 0.75, 4.0
"""What a process with torch takes to start and to end besides its training, and how many times as long at most where
the machine is busy."""


class RunClock:
    """Seconds of a run, those before a resume included.

    Args:
        budget_s: seconds for everything, saving included; None: no limit.
        before_s: seconds that earlier starts of this run took.
        started: ``time.monotonic()`` when this start began.
        training_began_s: seconds before the run's very first step; None: it comes now.
    """

    def __init__(
        self,
        budget_s: float | None,
        before_s: float = 0.0,
        started: float | None = None,
        training_began_s: float | None = None,
    ) -> None:
        self.budget_s, self.before_s = budget_s, before_s
        self.started = time.monotonic() if started is None else started
        self.reserve_s = 0.0
        self.agreed_share: float | None = None
        self.training_began_s = self.elapsed_s if training_began_s is None else training_began_s
        # So far was mostly loading libraries, on one core: what it took beyond its own work, others took.
        slower = (time.monotonic() - self.started) / max(0.1, time.process_time())
        self.exit_s = EXIT_SECONDS * min(MOST_SLOWER, max(1.0, slower))

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left; no limit without one."""
        return math.inf if self.budget_s is None else self.budget_s - self.elapsed_s

    @property
    def end_s(self) -> float:
        """When training has to stop so that validation and saving still fit."""
        assert self.budget_s is not None
        return max(0.0, self.budget_s - self.reserve_s)

    def reserve(self, validation_s: float, saving_s: float) -> None:
        """Keep time for what comes after the last step; grows with what is measured, never shrinks."""
        self.reserve_s = max(self.reserve_s, self.exit_s + 1.3 * (validation_s + saving_s))

    def share(self) -> float:
        """Share of the training time that is used, 0 to 1; 0 without a budget.

        On several processes it is rank 0's of this step: rates that differ would let the weights drift apart.
        """
        return self.own_share() if self.agreed_share is None else self.agreed_share

    def own_share(self) -> float:
        """The share by this process's own clock."""
        if self.budget_s is None:
            return 0.0
        span = self.end_s - self.training_began_s
        return 1.0 if span <= 0 else min(1.0, max(0.0, (self.elapsed_s - self.training_began_s) / span))

    def over(self, next_step_s: float) -> bool:
        """Whether another step would end too late."""
        return self.budget_s is not None and self.elapsed_s + next_step_s > self.end_s
