"""Defines what a plan says."""

from __future__ import annotations

from dataclasses import dataclass, field

from pretrain_cli.planning.estimate import Memory
from pretrain_cli.training.measuring.forecast import Duration


@dataclass(frozen=True)
class TrainingPlan:
    """What a training takes. Seconds, bytes, FLOPs; ``memory`` and ``available_bytes`` are of one device.

    Attributes:
        machine: what it would run on.
        rows, tokens: training rows of one epoch, and tokens of the whole training.
        step_source: how ``step_seconds`` was found.
        measured_peak_bytes: what a few real steps took here; None where none were made.
        fixes: what would make it fit; empty where it does.
        disk_bytes, disk_free_bytes: what checkpoints and model take, and what is free here; None elsewhere.
        duration: what ``seconds`` is made of.
        assumptions: everything that isn't known for sure, one sentence each.
    """

    machine: str
    processes: int
    size: str
    parameters: int
    rows: int
    sequence_length: int
    tokens: int
    steps: int
    batch_tokens: int
    micro_batch: int
    accumulation: int
    precision: str
    optimizer: str
    flops: float
    memory: Memory
    measured_peak_bytes: float | None
    available_bytes: float
    fits: bool
    fixes: list[str]
    disk_bytes: float
    disk_free_bytes: float | None
    step_seconds: float
    step_source: str
    seconds: float
    duration: Duration
    tokens_per_second: float
    watts: float
    energy_kwh: float
    hourly_rate: float | None
    price: float | None
    choices: dict[str, str] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)
