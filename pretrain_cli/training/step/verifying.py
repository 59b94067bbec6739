"""Computes a step again now and then, and compares every bit: a machine that miscomputes says nothing of it itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pretrain_cli.progress import Progress
from pretrain_cli.training.processes.agreement import totals

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Digest = list[int]


class Verifier:
    """Compares computations of the same step by the same process: loss and gradients, bit for bit.

    Two that differ are decided by a third. Where the first three of a run all differ, the device's kernels add up in
    any order: nothing can be verified there, and that is said once.

    Args:
        every: steps between two that are verified; 0: none is.
        progress: told what differs.
        device: whose random state a step begins with.
    """

    def __init__(self, every: int, progress: Progress, device: torch.device) -> None:
        self.every, self._progress, self._device = every, progress, device
        self._repeatable = False
        self._random: list[Tensor] = []

    def begin(self) -> None:
        """Remember the random state that a step begins with."""
        if self.every:
            self._random = [torch.get_rng_state()]
            if self._device.type != "cpu":
                self._random.append(torch.get_device_module(self._device).get_rng_state())

    def due(self, step: int, suspicious: Callable[[], bool]) -> bool:
        """Whether to verify ``step``: it is its turn, or on some process its loss is suspicious."""
        if not self.every:
            return False
        return step % self.every == 0 or totals(float(suspicious()))[0] > 0

    def check(self, step: int, model: nn.Module, loss: Callable[[], Tensor], again: Callable[[], None]) -> None:
        """Compare what a step gave with what it gives again; the loss and gradients of the last time stay.

        Args:
            step: to name it.
            model: whose gradients are there.
            loss: the step's loss as it was computed last.
            again: forgets the gradients, and computes the step again.
        """
        found = [digest(model, loss())]
        for _ in range(2):
            self._restore_random()
            again()
            found.append(digest(model, loss()))
            if not totals(float(found[-1] != found[-2]))[0]:
                break
        first, second, *third = found
        if not third:
            self._repeatable = True
            return
        agree = not totals(float(third[0] not in (first, second)))[0]
        if not agree and not self._repeatable:
            self.every = 0
            self._progress.warn(
                f"Step {step} gives other bits each time it is computed: this device adds up in any order, so that "
                "no step can be verified. train.verify_steps is off."
            )
            return
        self._repeatable |= agree
        values = sum(one != other for one, other in zip(first, second, strict=True))
        outcome = "two of three results agree and are used" if agree else "all three differ, and the last one is used"
        self._progress.warn(
            f"Step {step} gave other bits when it was computed again ({values} of {len(first)} tensors): {outcome}. "
            "The machine may miscompute: test its memory and processor."
        )

    def _restore_random(self) -> None:
        own, *devices = self._random
        torch.set_rng_state(own)
        for state in devices:
            torch.get_device_module(self._device).set_rng_state(state)


def digest(model: nn.Module, loss: Tensor) -> Digest:
    """A sum over the bits of the loss and of each gradient that this process holds: one that flips changes it."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    sums = [_bits(value) for value in (loss.detach(), *gradients)]
    found: Digest = torch.stack(sums).tolist()
    return found


def _bits(value: Any) -> Tensor:
    local = value.to_local() if isinstance(value, DTensor) else value
    return local.view(BITS[local.element_size()]).sum(dtype=torch.int64)
