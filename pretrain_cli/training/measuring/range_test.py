"""Finds a learning rate for a model and text by a range test (Smith 2015, arXiv 1506.01186)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.drawing import plain_style
from pretrain_cli.errors import ConfigError, DivergedError
from pretrain_cli.foreign import DRAWN, keep_aside
from pretrain_cli.model.probes import head_is_plain
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.refusals import A_COPY, check_writable, writing_to
from pretrain_cli.storage import replacing, write_sealed_json
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.context import TrainingContext, open_unrecorded
from pretrain_cli.training.measuring.step_timing import on_device
from pretrain_cli.training.rows.feed import Feed
from pretrain_cli.training.rows.order import RowOrder
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.optimizers import make_optimizer

STEPS = 100
SECONDS = 120.0
"""A test ends here at the latest, with fewer steps."""
LEAST_STEPS = 20
FROM, TO = 1 / 64, 64.0
"""The rates go from this share of the planned ones to that."""
SMOOTHING = 0.8
DIVERGED = 1.1
"""Over this many times the best smoothed loss the test has seen enough."""
BEFORE_THE_BEST = 4.0
"""The rate is taken this far below the one with the lowest loss: a whole run must stay stable, not a hundred steps."""


@dataclass(frozen=True)
class RateSearch:
    """What a range test found.

    Attributes:
        learning_rate: to try, for `--learning-rate`.
        matrix_learning_rate: of muon's matrices at that point; None with another optimizer.
        planned: what training would take.
        rates: of each step, of the weights that ``train.learning_rate`` names; the others rise along with them.
        losses: smoothed, nats per token.
        picture: where the curve is drawn.
    """

    learning_rate: float
    matrix_learning_rate: float | None
    planned: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    picture: Path


def find_learning_rate(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, command: Sequence[str] = ()
) -> RateSearch:
    """Train a copy of the model for some steps while all rates rise exponentially; nothing of it is kept but the curve.

    Args:
        config: as for a training.
        artifacts: holds the prepared data; receives learning-rate.png and learning-rate.json.
        progress: told about choices and steps.
        command: what was typed.

    Raises:
        DataError, ConfigError, ModelError: as a training.
    """
    quiet_libraries()
    check_writable(artifacts.root, A_COPY)
    with writing_to(artifacts.root, A_COPY):
        context = open_unrecorded(config, artifacts, progress, tuple(command))
        plan = context.plan
        rates, losses = _rise(context)
        found = _choose(rates, losses)
        picture, record = artifacts.root / "learning-rate.png", artifacts.root / "learning-rate.json"
        for told in filter(None, map(keep_aside, (picture, record))):
            progress.warn(told)
        _draw(picture, rates, losses, found, plan.rates.main)
        matrices = found * plan.rates.matrix / plan.rates.main if plan.optimizer == "muon" else None
        result = RateSearch(found, matrices, plan.rates.main, tuple(rates), tuple(losses), picture)
        write_sealed_json(record, {**result.__dict__, "picture": str(picture)})
    return result


def _rise(context: TrainingContext) -> tuple[list[float], list[float]]:
    """(rates, smoothed losses) of the steps until the loss rises steeply."""
    config, machine, plan, progress = context.config, context.machine, context.plan, context.progress
    if plan.optimizer not in ("adamw", "muon"):
        raise ConfigError(
            f"The range test doesn't know the optimizer '{plan.optimizer}'.", "Set train.optimizer to adamw or muon."
        )
    model = on_device(context.model, machine.device).train()
    attach_loss(model, head_is_plain(model), config.train.z_loss, teachers=context.teachers)
    optimizer = make_optimizer(model, plan.optimizer, config.train, plan.rates, machine.newton_schulz_dtype)
    peaks = [group["lr"] for group in optimizer.param_groups]
    order = RowOrder(len(context.rows.train), plan.micro_batch, STEPS * plan.accumulation, config.train.seed)
    feed = Feed(context.rows.train, order, 0, False, progress.warn)
    rates, losses, mean, began = [], [], 0.0, time.monotonic()
    progress.stage("range test", STEPS, "steps")
    for step in range(STEPS):
        factor = FROM * (TO / FROM) ** (step / (STEPS - 1))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        loss = _step(model, optimizer, feed, plan, machine, config.train.max_grad_norm)
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth = mean / (1 - SMOOTHING ** (step + 1))
        rates.append(plan.rates.main * factor)
        losses.append(smooth)
        progress.advance(step + 1, loss=loss)
        late = time.monotonic() - began > SECONDS and step >= LEAST_STEPS
        if late or (smooth > DIVERGED * min(losses) and step >= LEAST_STEPS):
            break
    progress.end_stage()
    return rates, losses


def _step(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, feed: Feed, plan: Plan, machine: Machine, clip: float
) -> float:
    total, kind = 0.0, torch.device(machine.device).type
    mixed = torch.autocast(kind, torch.bfloat16) if machine.precision == "bf16" else contextlib.nullcontext()
    for batch in feed.take(plan.accumulation):
        inputs = {name: tensor.to(machine.device) for name, tensor in batch.items()}
        with mixed:
            loss = model(**inputs)["loss"] / plan.accumulation
        loss.backward()
        total += float(loss.detach())
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _choose(rates: list[float], losses: list[float]) -> float:
    if not losses:
        raise DivergedError("The loss isn't finite at the first step.", "Check the model and the rows: ptk inspect")
    best = min(range(len(losses)), key=losses.__getitem__)
    return float(f"{rates[best] / BEFORE_THE_BEST:.2g}")


@plain_style()
def _draw(path: Path, rates: list[float], losses: list[float], found: float, planned: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, linewidth=1.5)
    axes.axvline(found, color="tab:green", linestyle="--", label=f"found: {found:.2g}")
    axes.axvline(planned, color="tab:gray", linestyle=":", label=f"planned: {planned:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed", title="Learning-rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata=DRAWN)
