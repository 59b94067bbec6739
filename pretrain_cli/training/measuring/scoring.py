"""Scores held-out rows during training and at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.training.processes.agreement import totals
from pretrain_cli.training.step.loss import IGNORED, following


@dataclass(frozen=True)
class Validation:
    """Nats per scored token, and the bits per byte that follow from the split's own tokens per byte."""

    loss: float
    bits_per_byte: float | None
    rows: int
    tokens: int


def validate(
    model: nn.Module,
    dataset: PackedDataset,
    *,
    rows: int,
    batch_rows: int,
    device: torch.device,
    tokens_per_byte: float | None,
    rank: int = 0,
    world_size: int = 1,
    stop: Callable[[], bool] = lambda: False,
    seconds: float = math.inf,
    scored: Callable[[int], None] = lambda rows: None,
) -> Validation | None:
    """Score ``rows`` rows spread evenly over the split; draws no random numbers. None if ``stop`` said so.

    Where ``seconds`` are over, what is scored until then counts: rows spread evenly too.

    Args:
        model: what `attach_loss` was called on, as it is trained (wrapped or not).
        dataset: the validation rows.
        rows: how many.
        batch_rows: rows at once.
        device: where the model is.
        tokens_per_byte: of the split, for bits per byte; None leaves them out.
        rank: of this process; each scores its share.
        world_size: processes.
        stop: asked between batches.
        seconds: to take at most.
        scored: told after each batch how many rows are done.
    """
    count = min(rows, len(dataset))
    places = _spread(torch.linspace(0, len(dataset) - 1, count).round().long().tolist())[rank::world_size]
    began, longest, scored_rows = time.monotonic(), 0.0, 0
    sums = torch.zeros(2, dtype=torch.float64, device=device if device.type != "mps" else "cpu")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, -(-count // world_size), batch_rows):
                if stop() and world_size == 1:
                    return None
                batch_began = time.monotonic()
                if start and world_size == 1 and batch_began - began + longest > seconds:
                    break
                # Every process makes the same number of passes, since a sharded model gathers its weights in each.
                part = places[start : start + batch_rows]
                batch = dataset.__getitems__(part or [0])
                if not part:
                    batch["labels"].fill_(IGNORED)
                labels = batch["labels"]
                due = int((following(labels) != IGNORED).sum())
                inputs = {name: tensor.to(device) for name, tensor in batch.items()}
                sums[0] += model(**inputs)["total"].to(sums.device).to(sums.dtype)  # Apple's GPU has no float64
                sums[1] += due
                scored_rows += len(labels)
                longest = max(longest, time.monotonic() - batch_began)
                scored(min(count, scored_rows * world_size))
    finally:
        model.train(training)
    nats, tokens = totals(*sums.tolist())
    loss = nats / max(1.0, tokens)
    bits = loss / math.log(2) * tokens_per_byte if tokens_per_byte else None
    return Validation(loss, bits, scored_rows if world_size == 1 else count, int(tokens))


def _spread(places: list[int]) -> list[int]:
    """The same places, so ordered that each beginning of the list is spread over the whole: every 8th first."""
    return [place for first in (0, 4, 2, 6, 1, 5, 3, 7) for place in places[first::8]]
