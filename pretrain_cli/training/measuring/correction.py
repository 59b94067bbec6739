"""Compares what was announced of a run with what happens, and says so once where they differ."""

from __future__ import annotations

from pretrain_cli.formatting import step_time
from pretrain_cli.training.attempt import Attempt

AFTER_SHARE, LEAST_STEPS = 0.1, 5
"""Share of the run, and steps, that have to be done before they are compared."""
OFF_BY = 0.25
"""Share by which the steps may differ from the announced ones without a word."""


class Correction:
    """Says after the first tenth of a run by the clock how many steps there will be, if not about as many as announced.

    The length, the schedule and the intervals of such a run follow the clock: only the announcement was wrong.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        # A resume announces nothing, and a run of a number of steps makes that number.
        self._due = not attempt.state.step and attempt.context.plan.seconds is not None

    def look(self) -> None:
        """A step has ended."""
        attempt = self._attempt
        context, step, share = attempt.context, attempt.state.step, attempt.clock.share()
        if not self._due or share < AFTER_SHARE or step < LEAST_STEPS:
            return
        self._due = False
        announced = context.plan.expected_steps
        coming = round(step / share)
        coming = min(coming, context.plan.steps or coming)
        if abs(coming / announced - 1) > OFF_BY:
            seconds = attempt.state.stepping_s / step
            context.choices.note(
                f"corrected: about {coming:,} steps, not {announced:,}: a step takes {step_time(seconds)}, "
                f"not {step_time(context.plan.step_seconds)}"
            )
            context.record.update(choices=tuple(context.choices.lines))
