"""Defines what a plan says."""

from __future__ import annotations

from dataclasses import dataclass, field

from pretrain_cli.training.measuring.estimate import Memory
from pretrain_cli.training.measuring.forecast import Duration


@dataclass(frozen=True)
class MethodForecast:
    """One way to train a base: "full", "lora" or "qlora".

    Attributes:
        rank: of LoRA's matrices; 0 for "full".
        trained: weights that move.
        peak_bytes: memory on one device; ``fits``: whether there is so much.
        micro_batch: rows at once.
        tokens_per_second: by arithmetic from that of the planned method.
    """

    method: str
    rank: int
    trained: int
    peak_bytes: float
    fits: bool
    micro_batch: int
    gradient_checkpointing: bool
    tokens_per_second: float


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
        method: how a base is trained; ``methods``: the ways to, side by side, where it is one.
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
    method: str = "full"
    methods: tuple[MethodForecast, ...] = ()
