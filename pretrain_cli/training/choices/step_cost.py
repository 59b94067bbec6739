"""Says what an optimizer step takes, and how many tokens a time pays for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pretrain_cli.model.sizes import Shape

UTILIZATION = 0.45
"""Share of the matmul peak that training is taken to reach where no step was measured: 0.72 on wide models, 0.1 on
narrow ones."""

FORWARD_SHARE = 0.4
"""A row that goes forward alone, in a validation or through a teacher, costs about this much of a training step: a
third of the arithmetic, and its share of everything else."""


@dataclass(frozen=True)
class StepCost:
    """What training one model takes.

    Attributes:
        token_s: seconds forward and backward for each token of a batch, over all processes.
        update_s: seconds of the optimizer for each step.
        measured: whether real steps were timed.
    """

    token_s: float
    update_s: float = 0.0
    measured: bool = False

    def step_seconds(self, batch_tokens: float) -> float:
        """Seconds of an optimizer step."""
        return batch_tokens * self.token_s + self.update_s

    def compiled(self, gain: float) -> StepCost:
        """The same where forward and backward are ``gain`` times as fast."""
        return StepCost(self.token_s / gain, self.update_s, self.measured)

    def tokens(self, seconds: float, batch_tokens: float) -> float:
        """Tokens that ``seconds`` of steps of ``batch_tokens`` pay for."""
        return math.inf if seconds == math.inf else seconds / self.step_seconds(batch_tokens) * batch_tokens


CostOf = Callable[[Shape | None], StepCost]
"""What training a shape takes; of None: the base."""


def assumed_cost(operations: float, peak_flops: float, utilization: float = UTILIZATION) -> StepCost:
    """What training takes at a share of the speed of a matrix product.

    Args:
        operations: to train on one token.
        peak_flops: operations a second, all processes together.
        utilization: the share.
    """
    return StepCost(operations / (peak_flops * utilization))
