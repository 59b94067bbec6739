"""Chooses a run's batch and micro-batches by its length and the memory."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_cli.config.model import LARGEST, TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.model.sizes import Shape
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.recipe import choose_batch_tokens

MICRO_BATCH_TOKENS = 8192
"""Tokens at once on a CPU: more gains no speed there."""
ACTIVATION_BYTES = 72
"""Bytes a token, layer and hidden dimension hold for the backward pass in fp32, without checkpointing."""


FILLED = 0.9
"""Share of a GPU's free memory that a plan may count on: fragments take the rest."""


@dataclass(frozen=True)
class BatchPlan:
    """Rows at once on each process, micro-batches of an optimizer step, and its tokens over all processes."""

    micro: int
    accumulation: int
    tokens: int


def choose_batch(facts: Facts, train: TrainConfig, tokens: float, shape: Shape | None) -> Choice[BatchPlan]:
    """The batch and its micro-batches, by what is asked for, the run's ``tokens`` and the memory.

    Raises:
        ConfigError: settings that contradict each other.
    """
    row, world = facts.sequence_length, facts.world_size
    given = [value for value in (train.micro_batch, train.gradient_accumulation) if isinstance(value, int)]
    if isinstance(train.batch_tokens, int):
        wanted, reason = train.batch_tokens, ASKED
    elif len(given) == 2:
        wanted, reason = given[0] * given[1] * row * world, ASKED
    else:
        wanted, reason = choose_batch_tokens(tokens, bool(facts.base_parameters), row * world)
    whole = max(1, round(wanted / row))
    if whole % world and isinstance(train.batch_tokens, int):
        raise ConfigError(
            f"A batch of {wanted:,} tokens is {whole} rows, which {world} processes can't share evenly.",
            "Use a number of processes that divides it, or another train.batch_tokens.",
        )
    rows = max(1, round(whole / world))
    if not given:
        rows = min(rows, max(1, facts.train_rows // world))
    if isinstance(train.micro_batch, int):
        micro = min(train.micro_batch, rows)
    elif isinstance(train.gradient_accumulation, int):
        micro = max(1, rows // train.gradient_accumulation)
    elif facts.peaks is not None:
        micro = _most_rows(facts, train, shape, rows)
    else:
        micro = _divisor(
            rows, min(_fitting_rows(facts, shape), max(1, MICRO_BATCH_TOKENS // row) if facts.on_cpu else rows)
        )
    given_accumulation = train.gradient_accumulation
    accumulation = given_accumulation if isinstance(given_accumulation, int) else max(1, round(rows / micro))
    total = micro * accumulation * row * world
    if total > LARGEST:
        raise ConfigError(
            f"train.micro_batch and train.gradient_accumulation make steps of {total:,} tokens.",
            f"Set smaller ones: a step may have up to {LARGEST:,} tokens.",
        )
    if isinstance(train.batch_tokens, int) and len(given) == 2 and total != train.batch_tokens:
        raise ConfigError(
            f"micro_batch × gradient_accumulation × rows × processes make {total:,} tokens, but batch_tokens says "
            f"{train.batch_tokens:,}.",
            "Leave one of train.batch_tokens, train.micro_batch and train.gradient_accumulation at auto.",
        )
    pieces = f"{micro} {'row' if micro == 1 else 'rows'} of {row}" + (f" × {accumulation}" if accumulation > 1 else "")
    told = f"{total:,} tokens ({pieces}{f' on {world} processes' if world > 1 else ''}): {reason}"
    return Choice(BatchPlan(micro, accumulation, total), told)


def _divisor(rows: int, limit: int) -> int:
    """The largest divisor of ``rows`` up to ``limit``: accumulation then keeps the batch exactly."""
    return next(size for size in range(max(1, min(rows, limit)), 0, -1) if rows % size == 0)


def _most_rows(facts: Facts, train: TrainConfig, shape: Shape | None, rows: int) -> int:
    """The most rows at once, of those that divide ``rows``, that a GPU holds; with all activations kept if it can."""
    assert facts.peaks is not None
    setting = train.gradient_checkpointing
    for checkpointing in (False, True) if setting == "auto" else (setting,):
        for size in (size for size in range(rows, 0, -1) if rows % size == 0):
            if facts.peaks.bytes_of(shape, size, rows // size, checkpointing) <= FILLED * facts.memory_bytes:
                return size
    return 1


def _row_bytes(facts: Facts, shape: Shape | None) -> float:
    layers = shape.layers if shape else facts.base_layers
    hidden = shape.hidden if shape else facts.base_hidden
    return facts.sequence_length * layers * hidden * ACTIVATION_BYTES


def _fixed_bytes(facts: Facts, shape: Shape | None) -> float:
    """Weights, gradients and optimizer: two moments in fp32 where nothing else is known."""
    return facts.held_bytes or 16.0 * (shape.parameters(facts.vocab_size) if shape else facts.base_parameters)


def _fitting_rows(facts: Facts, shape: Shape | None) -> int:
    free = 0.8 * facts.memory_bytes - _fixed_bytes(facts, shape)
    return max(1, int(free / max(1.0, _row_bytes(facts, shape))))


def check_fits(facts: Facts, train: TrainConfig, shape: Shape | None) -> None:
    """Refuse a training whose smallest step is more than a GPU holds.

    Raises:
        ConfigError: one row with activations computed again doesn't fit, by `ptk plan`'s arithmetic.
    """
    if facts.peaks is None:
        return
    again = train.gradient_checkpointing is not False
    needed = facts.peaks.bytes_of(shape, 1, 2, again)
    if needed <= facts.memory_bytes:
        return
    ways = facts.peaks.ways(shape, 1, again, facts.memory_bytes)
    where = "on each GPU " if facts.world_size > 1 else ""
    raise ConfigError(
        f"This training doesn't fit: it holds {needed / 1e9:.1f} GB {where}with one row at once, and "
        f"{facts.memory_bytes / 1e9:.1f} GB are free.",
        f"What would: {'; '.join(ways)}. See also: ptk plan",
    )


def choose_checkpointing(facts: Facts, train: TrainConfig, batch: BatchPlan, shape: Shape | None) -> Choice[bool]:
    """Whether to compute activations again in the backward pass, where the memory is too small to keep them."""
    if train.gradient_checkpointing != "auto":
        return Choice(train.gradient_checkpointing, "")
    if facts.peaks is not None:
        held = facts.peaks.bytes_of(shape, batch.micro, batch.accumulation, False)
        room = FILLED * facts.memory_bytes
        told = f"on: {held / 1e9:.1f} GB would be held with all activations, {room / 1e9:.1f} GB can be filled"
        return Choice(held > room, told if held > room else "")
    needed = _fixed_bytes(facts, shape) + batch.micro * _row_bytes(facts, shape)
    if needed <= 0.9 * facts.memory_bytes:
        return Choice(False, "")
    return Choice(
        True,
        f"on: {needed / 1e9:.1f} GB of activations and weights are needed, {facts.memory_bytes / 1e9:.1f} GB are free",
    )
