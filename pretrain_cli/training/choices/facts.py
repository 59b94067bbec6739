"""Defines the facts from which a run's choices follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pretrain_cli.model.sizes import Shape
from pretrain_cli.training.choices.method import FULL, Method


class Peaks(Protocol):
    """What one device holds at most: the arithmetic of `ptk plan`."""

    def bytes_of(self, shape: Shape | None, rows: int, accumulation: int, checkpointing: bool) -> float:
        """Of a model of ``shape`` (None: the base) with ``rows`` rows at once."""

    def ways(self, shape: Shape | None, rows: int, checkpointing: bool, available: float) -> list[str]:
        """Changes with which it would fit ``available`` bytes."""


@dataclass(frozen=True)
class Facts:
    """What the choices follow from.

    Attributes:
        train_rows, sequence_length, vocab_size: of the prepared data.
        flops: measured floating-point operations a second of a matrix product, all processes together.
        memory_bytes: free on the device of one process.
        world_size: processes.
        on_cpu: whether the device is a CPU.
        deepspeed: whether DeepSpeed holds the weights, flattened.
        used_s: seconds of a budget of minutes that are not for steps: used already, or kept for the end.
        base_parameters: weights of the base; 0 from scratch.
        base_hidden, base_layers: its shape; 0 from scratch.
        method: how the base is trained.
        trained_parameters: weights that move; of a base, all of them or those of the adapter.
        peaks: what a GPU would hold; None on a CPU, which takes rough figures, as the swap is there.
        short_optimizer: takes AdamW's place where that doesn't fit; empty where it does.
        held_bytes: weights, gradients and optimizer of a base by that method, on one process; 0: in fp32 by AdamW.
    """

    train_rows: int
    sequence_length: int
    vocab_size: int
    flops: float
    memory_bytes: float
    world_size: int = 1
    on_cpu: bool = True
    deepspeed: bool = False
    used_s: float = 0.0
    base_parameters: int = 0
    base_hidden: int = 0
    base_layers: int = 0
    method: Method = FULL
    trained_parameters: int = 0
    held_bytes: float = 0.0
    short_optimizer: str = ""
    peaks: Peaks | None = field(default=None, compare=False)

    @property
    def text_tokens(self) -> int:
        """Of one pass over the training rows."""
        return self.train_rows * self.sequence_length
