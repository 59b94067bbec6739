"""Notices when losses are no longer finite and falling."""

from __future__ import annotations

import math
import statistics

WINDOW = 64
LEAST_HISTORY = 16
IN_A_ROW = 5
LEAST_RISE = 1.5
"""Nats above the recent median that count as far above: a batch of odd text stays within about one."""
DEVIATIONS = 8.0


class Guard:
    """Watches each step's loss and gradient norm.

    Args:
        recent: losses of the last steps, shared with the state that a checkpoint keeps.
    """

    def __init__(self, recent: list[float]) -> None:
        self.recent = recent
        self.not_finite = 0
        self.far_above = 0

    @property
    def calm(self) -> bool:
        """Whether the last step was a good one: only then a checkpoint is worth keeping."""
        return not self.not_finite and not self.far_above

    def look(self, loss: float, grad_norm: float) -> str:
        """ "fine", "skip" (leave the step out) or the reason why the run has diverged."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self.not_finite += 1
            if self.not_finite >= IN_A_ROW:
                return f"{IN_A_ROW} steps in a row had a loss or gradient that isn't finite"
            return "skip"
        self.not_finite = 0
        middle, most = self._usual()
        if loss > most:
            self.far_above += 1
            if self.far_above >= IN_A_ROW:
                return f"the loss was far above its recent values ({loss:.2f} against {middle:.2f})"
            return "fine"
        self.far_above = 0
        self.recent.append(loss)
        del self.recent[:-WINDOW]
        return "fine"

    def suspects(self, loss: float) -> bool:
        """Whether a step with this loss is worth a second look: it isn't finite, or far above the recent ones."""
        return not math.isfinite(loss) or loss > self._usual()[1]

    def _usual(self) -> tuple[float, float]:
        """The recent losses' median, and what is far above it; infinite while there are too few."""
        if len(self.recent) < LEAST_HISTORY:
            return math.inf, math.inf
        middle = statistics.median(self.recent)
        spread = statistics.median(abs(value - middle) for value in self.recent)
        return middle, middle + max(LEAST_RISE, DEVIATIONS * spread)


class Diverged(Exception):
    """The loop stops here: why, at which step, and the rows of the last steps."""

    def __init__(self, reason: str, step: int, rows: list[int]) -> None:
        super().__init__(reason)
        self.reason, self.step, self.rows = reason, step, rows
