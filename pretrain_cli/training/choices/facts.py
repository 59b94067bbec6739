"""Defines the facts from which a run's choices follow."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def text_tokens(self) -> int:
        """Of one pass over the training rows."""
        return self.train_rows * self.sequence_length
