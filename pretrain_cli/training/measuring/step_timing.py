"""Times real training steps of the models that a run may train, before one is chosen."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.model.devices import synchronize
from pretrain_cli.model.limits import size_of
from pretrain_cli.model.probes import head_is_plain
from pretrain_cli.model.sizes import Shape
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.recipe import SMALL_BATCH_TOKENS, choose_rates
from pretrain_cli.training.choices.step_cost import StepCost
from pretrain_cli.training.measuring.forecast import flops_per_token
from pretrain_cli.training.processes.agreement import totals, world_size
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.optimizers import EPSILON, make_optimizer
from pretrain_cli.training.step.rows_at_once import RowsAtOnce, memory_explained
from pretrain_cli.training.step.teachers import Teachers

LEAST_SECONDS, SHARE = 1.0, 0.02
"""Measuring takes a second, or this share of the budget if that is more."""
CANDIDATES = 3
"""Models that are timed for one plan, about: each has this part of the time."""
STEPS = 4
"""Timed steps of a model at most; the first isn't counted."""
SAMPLE_WEIGHTS = 4_000_000
"""Weights on which the optimizer of a base is timed: the base itself must not move."""


@dataclass(frozen=True)
class TimedModels:
    """What is timed.

    Attributes:
        machine: what the run computes on.
        train: the config's section.
        optimizer: that the run will have; one of Trainer's own is taken to cost what AdamW does.
        batch: makes a batch of so many rows, on the CPU, as training will see them.
        sequence_length: tokens in a row.
        build: makes a model of a shape with random weights; of None: the base.
        peak_flops: of a matrix product, to guess how much may be timed.
        seconds: of the run's budget; None without one.
        teachers: that are asked in every step.
    """

    machine: Machine
    train: TrainConfig
    optimizer: str
    batch: Callable[[int], dict[str, Tensor]]
    sequence_length: int
    build: Callable[[Shape | None], PreTrainedModel]
    peak_flops: float
    seconds: float | None
    teachers: Teachers | None = None


class StepTimer:
    """The cost of each shape, timed once. Every process times its own steps at the same moment; the mean counts."""

    def __init__(self, models: TimedModels) -> None:
        self._models = models
        self._limit = max(LEAST_SECONDS, SHARE * (models.seconds or 0.0)) / CANDIDATES
        self._known: dict[str, StepCost] = {}

    def __call__(self, shape: Shape | None) -> StepCost:
        """What a step of ``shape`` takes."""
        name = f"{shape.layers} × {shape.hidden}" if shape else ""
        if name not in self._known:
            token, update = totals(*self._time(shape))
            world = world_size()
            self._known[name] = StepCost(token / world / world, update / world, measured=True)
        return self._known[name]

    def _time(self, shape: Shape | None) -> tuple[float, float]:
        """(seconds a token, seconds an update) of this process."""
        own = self._models
        model = on_device(own.build(shape), own.machine.device).train()
        rows = RowsAtOnce(self._rows(model), torch.device(own.machine.device), lambda told: None, alone=True)
        with memory_explained(own.train, lambda: f"{rows.told} of {own.sequence_length:,} tokens at once"):
            return rows.fitting(lambda: self._time_steps(shape, model, rows.rows))

    def _time_steps(self, shape: Shape | None, model: PreTrainedModel, rows: int) -> tuple[float, float]:
        """(seconds a token, seconds an update) of ``model``, by batches of ``rows`` rows."""
        own, train = self._models, self._models.train
        batch = {name: tensor.to(own.machine.device) for name, tensor in own.batch(rows).items()}
        chunked = train.chunked_loss is not False and head_is_plain(model)
        detach = attach_loss(model, chunked, train.z_loss, teachers=own.teachers)
        try:
            update = _updates(model, own) if shape is not None else None
            passes, updates = [], []
            began = time.perf_counter()
            for step in range(STEPS):
                start = time.perf_counter()
                _pass(model, batch, own.machine)
                passes.append(_now(own.machine) - start)
                if update is not None:
                    start = time.perf_counter()
                    update()
                    updates.append(_now(own.machine) - start)
                if step and time.perf_counter() - began + passes[-1] > self._limit:
                    break
        finally:
            model.zero_grad(set_to_none=True)
            detach()
        if update is None:
            updates = [0.0, _sampled_update(model, own)]
        tokens = batch["input_ids"].numel()
        return statistics.median(passes[1:]) / tokens, statistics.median(updates[1:])

    def _rows(self, model: PreTrainedModel) -> int:
        """As many rows as a small batch has, or as can be timed twice within the limit."""
        own = self._models
        row = own.sequence_length * flops_per_token(model, own.sequence_length) / own.peak_flops * world_size()
        return max(1, min(SMALL_BATCH_TOKENS // own.sequence_length, int(self._limit / 2 / row)))


def on_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """``model`` on ``device``; one in 4 bits was opened there."""
    if getattr(model, "is_quantized", False):
        return model
    moved: PreTrainedModel = model.to(device)
    return moved


def _pass(model: PreTrainedModel, batch: dict[str, Tensor], machine: Machine) -> None:
    kind = torch.device(machine.device).type
    mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(machine.precision)
    with torch.autocast(kind, mixed) if mixed else contextlib.nullcontext():
        loss = model(**batch)["loss"]
    loss.backward()


def _updates(model: PreTrainedModel, own: TimedModels) -> Callable[[], None]:
    """One update of all weights of a model that nobody needs afterwards."""
    name = own.optimizer if own.optimizer == "muon" else "adamw"
    rates = choose_rates(name, size_of(model.config, "hidden_size", 1024), text_tokens=0)
    optimizer = make_optimizer(model, name, own.train, rates, own.machine.newton_schulz_dtype)

    def update() -> None:
        if own.train.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), own.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return update


def _sampled_update(model: PreTrainedModel, own: TimedModels) -> float:
    """Seconds in which AdamW moves as many weights as move in ``model``, from those of fewer."""
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    weights = sum(weight.numel() for weight in moving)
    kind = moving[0].dtype
    sample = torch.nn.Parameter(torch.zeros(min(weights, SAMPLE_WEIGHTS), dtype=kind, device=own.machine.device))
    sample.grad = torch.ones_like(sample)
    optimizer = torch.optim.AdamW([sample], lr=1e-8, eps=EPSILON, fused=True)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        optimizer.step()
        times.append(_now(own.machine) - start)
    return float(min(times) * weights / sample.numel())


def _now(machine: Machine) -> float:
    """The time when the device has done what it was given."""
    synchronize(machine.device)
    return time.perf_counter()
