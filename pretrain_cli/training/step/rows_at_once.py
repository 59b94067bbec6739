"""Computes a micro-batch in as few pieces as the memory allows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.data.rows.batches import rows_of
from pretrain_cli.errors import OutOfMemoryError, first_line
from pretrain_cli.memory import is_out_of_memory
from pretrain_cli.processes import world_size

T = TypeVar("T")
Batch = dict[str, torch.Tensor]
SMALL_OPTIMIZERS = ("adafactor", "adamw_8bit", "paged_adamw_8bit")
TOLD_LENGTH = 200
"""Characters of torch's own message: what was asked for, and what was free."""


class RowsAtOnce:
    """How many rows are computed at once: as planned, until the memory runs out.

    The gradient of a batch is a sum over its rows, so that smaller pieces change nothing but rounding.

    Args:
        rows: of a micro-batch.
        device: whose unused memory is given back before a smaller piece is tried.
        warn: told how many rows fit, once they have.
        alone: no other process waits for what this one computes.
    """

    def __init__(self, rows: int, device: torch.device, warn: Callable[[str], None], alone: bool) -> None:
        self.planned = self.rows = rows
        self._alone = alone
        self._device, self._warn, self._told = device, warn, rows

    def of(self, batch: Batch) -> Iterator[Batch]:
        """``batch`` itself, or its rows a few at a time."""
        count = len(batch["input_ids"])
        if count <= self.rows:
            yield batch
            return
        for start in range(0, count, self.rows):
            yield rows_of(batch, start, self.rows)

    def halve(self) -> bool:
        """Take half the rows at once from now on; False where there is no half, or other processes would wait.

        Gradients of several processes are summed inside the backward pass, where the others can't be told.
        """
        if self.rows == 1 or not self._alone:
            return False
        self.rows //= 2
        if self._device.type != "cpu":
            torch.get_device_module(self._device).empty_cache()
        return True

    def fitting(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done again with half the rows at once where the memory has run out."""
        while True:
            try:
                found = work()
                self.say()
                return found
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.halve():
                    raise

    @property
    def told(self) -> str:
        """The rows at once, in words."""
        return "one row" if self.rows == 1 else f"{self.rows} rows"

    def say(self) -> None:
        """Say what fits, where that has become less; after it has been tried."""
        if self._told != self.rows:
            self._told = self.rows
            self._warn(
                f"The memory holds {self.told} at once instead of {self.planned}: "
                "each batch is computed in smaller pieces. The batch and the losses stay the same."
            )


@contextlib.contextmanager
def memory_explained(train: TrainConfig, held: Callable[[], str], resume: Callable[[], str] = str) -> Iterator[None]:
    """Turn a memory that has run out into an error that says what to try.

    Args:
        train: the config's section.
        held: what it was to hold, in words.
        resume: the command that continues with fewer rows; empty where there is nothing to continue or to halve.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"The memory has run out: there is no room for {held()}. {first_line(error)[:TOLD_LENGTH]}."
        hint = f"Take half the rows at once: {resume()}" if resume() else f"Try: {_ways(train)}"
        raise OutOfMemoryError(message, hint) from error


def _ways(train: TrainConfig) -> str:
    ways = []
    if train.gradient_checkpointing is not True:
        ways.append("--set train.gradient_checkpointing=true")
    if train.precision != "bf16-weights":
        ways.append("--set train.precision=bf16-weights")
    if train.optimizer not in SMALL_OPTIMIZERS:
        ways.append("--set train.optimizer=adafactor")
    if not train.shard_model and world_size() > 1:
        ways.append("--shard-model")
    ways.append("shorter rows (ptk prepare --sequence-length), a smaller model. What is needed: ptk plan")
    return ", ".join(ways)
