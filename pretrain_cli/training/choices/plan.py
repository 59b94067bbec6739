"""Facts in, choices out: how large a model, how long, in which batches, at which rates, and why each?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.devices import Choice
from pretrain_cli.model.sizes import ENOUGH_FOR_THE_TEXT, Shape, choose_shape, named_shape
from pretrain_cli.training.choices.recipe import (
    BASE_PASSES,
    DEFAULT_MINUTES,
    SMALL_BATCH_TOKENS,
    TINY_TEXT_TOKENS,
    WIDTH,
    Rates,
    choose_batch_tokens,
    choose_passes,
    choose_rates,
    choose_warmup,
)

UTILISATION = 0.45
"""Share of the measured matmul peak that training reaches: 0.72 on wide models here, less on narrow ones."""
MICRO_BATCH_TOKENS = 8192
"""Tokens at once on a CPU: more gains no speed there."""
ACTIVATION_BYTES = 72
"""Bytes a token, layer and hidden dimension hold for the backward pass in fp32, without checkpointing."""
LOG_EVERY_STEP_UP_TO = 2000


@dataclass(frozen=True)
class Facts:
    """What the choices follow from.

    Attributes:
        train_rows, sequence_length, vocab_size: of the prepared data.
        flops: measured floating-point operations a second, all processes together.
        memory_bytes: free on the device of one process.
        world_size: processes.
        on_cpu: whether the device is a CPU.
        deepspeed: whether DeepSpeed holds the weights, as flat parts.
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
    base_parameters: int = 0
    base_hidden: int = 0
    base_layers: int = 0

    @property
    def text_tokens(self) -> int:
        """Of one pass over the training rows."""
        return self.train_rows * self.sequence_length


@dataclass(frozen=True)
class Plan:
    """The choices. ``steps`` is the last step, or None where the clock ends the run after ``seconds``."""

    shape: Shape | None
    steps: int | None
    seconds: float | None
    expected_steps: int
    micro_batch: int
    accumulation: int
    batch_tokens: int
    optimizer: str
    rates: Rates
    schedule: str
    warmup_steps: int
    save_every: int | None
    eval_every: int | None
    logging_every: int
    gradient_checkpointing: bool
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def batch_rows_per_process(self) -> int:
        return self.micro_batch * self.accumulation


def make_plan(facts: Facts, train: TrainConfig, size: str = "auto", layers: int | None = None) -> Plan:
    """Choose what ``train`` leaves at auto.

    Raises:
        ConfigError: settings that contradict each other, or a size that doesn't exist.
    """
    reasons: dict[str, str] = {}
    minutes, default_epochs = train.max_minutes, None
    passes = choose_passes(facts.text_tokens, bool(facts.base_parameters))
    if not any((train.max_steps, train.epochs, train.max_tokens, train.max_minutes)):
        default_epochs = BASE_PASSES if facts.base_parameters else passes
        if facts.on_cpu:
            minutes = DEFAULT_MINUTES
        reasons["budget"] = (
            f"{default_epochs:g} passes over the text"
            + (f" or {minutes:g} min, whichever ends first" if minutes else "")
        ) + ": none was given"
    elif not any((train.max_steps, train.epochs, train.max_tokens)):
        default_epochs = passes
    token_limit = _token_limit(facts, train, default_epochs)
    seconds = minutes * 60 if minutes else None
    flops = facts.flops * UTILISATION * (seconds or math.inf)
    shape: Shape | None = None
    if not facts.base_parameters:
        chosen = _shape(facts, flops, token_limit, size, layers)
        shape = chosen.value
        reasons["size"] = f"{shape.name}, {shape.layers} layers of {shape.hidden}: {chosen.reason}"
    per_token = shape.flops_per_token(facts.vocab_size, facts.sequence_length) if shape else 6.0 * facts.base_parameters
    tokens = min(token_limit, flops / per_token)
    micro, accumulation, batch_tokens = _batch(facts, train, tokens, shape, reasons)
    if default_epochs and "budget" not in reasons:
        token_limit = _repeated(passes, token_limit, flops / per_token, minutes or 0, reasons)
    steps = _step_limit(facts, train, batch_tokens, token_limit)
    expected = int(max(1, min(steps or math.inf, flops / per_token / batch_tokens)))
    optimizer, rates = _rates(facts, train, shape, reasons)
    warmup = train.warmup_steps if isinstance(train.warmup_steps, int) else choose_warmup(expected)
    schedule = _schedule(train, warmup, reasons)
    return Plan(
        shape=shape,
        steps=steps,
        seconds=seconds,
        expected_steps=expected,
        micro_batch=micro,
        accumulation=accumulation,
        batch_tokens=batch_tokens,
        optimizer=optimizer,
        rates=rates,
        schedule=schedule,
        warmup_steps=warmup,
        save_every=_every(train.save_steps, steps, seconds),
        eval_every=_every(train.eval_steps, steps, seconds),
        logging_every=_logging(train, expected),
        gradient_checkpointing=_checkpointing(facts, train, micro, shape, reasons),
        reasons=reasons,
    )


def _repeated(passes: float, text: float, affordable: float, minutes: float, reasons: dict[str, str]) -> float:
    """Tokens at most where only the time was given: more passes over the same text would make the model worse.

    Args:
        passes: over the text at most.
        text: tokens of that many passes.
        affordable: tokens that the time pays for, by estimate.
        minutes: of the budget.
        reasons: receives why the run ends early.
    """
    if affordable < ENOUGH_FOR_THE_TEXT * text:
        return math.inf
    reasons["budget"] = (
        f"ends after {passes:g} passes over the text, or {minutes:g} min: more passes would only learn it by "
        "heart (--epochs overrules)"
    )
    return text


def _token_limit(facts: Facts, train: TrainConfig, default_epochs: float | None) -> float:
    """Training tokens at most by max_tokens, epochs or max_steps with a known batch; inf where the clock decides."""
    limits = [train.max_tokens or math.inf, (train.epochs or default_epochs or math.inf) * facts.text_tokens]
    if train.max_steps:
        known = train.batch_tokens if isinstance(train.batch_tokens, int) else SMALL_BATCH_TOKENS
        limits.append(train.max_steps * known)
    return float(min(limits))


def _step_limit(facts: Facts, train: TrainConfig, batch_tokens: int, token_limit: float) -> int | None:
    limits: list[float] = [train.max_steps or math.inf]
    if train.max_steps is None and token_limit < math.inf:
        limits.append(max(1, math.floor(token_limit / batch_tokens)))
    elif train.max_tokens or train.epochs:
        tokens = min(train.max_tokens or math.inf, (train.epochs or math.inf) * facts.text_tokens)
        limits.append(max(1, math.floor(tokens / batch_tokens)))
    return int(min(limits)) if min(limits) < math.inf else None


def _shape(facts: Facts, flops: float, token_limit: float, size: str, layers: int | None) -> Choice[Shape]:
    if size != "auto":
        return Choice(named_shape(size, layers), "as asked")
    # The text itself bounds what a model can learn.
    text = choose_passes(facts.text_tokens, base=False) * facts.text_tokens
    source = "budget" if token_limit < text else "text"
    return choose_shape(flops, facts.vocab_size, facts.sequence_length, layers, min(token_limit, text), source)


def _batch(
    facts: Facts, train: TrainConfig, tokens: float, shape: Shape | None, reasons: dict[str, str]
) -> tuple[int, int, int]:
    """(micro-batch rows, accumulation, tokens of a whole step)."""
    row, world = facts.sequence_length, facts.world_size
    given = [value for value in (train.micro_batch, train.gradient_accumulation) if isinstance(value, int)]
    if isinstance(train.batch_tokens, int):
        wanted, reason = train.batch_tokens, "as asked"
    elif len(given) == 2:
        wanted, reason = given[0] * given[1] * row * world, "as asked"
    else:
        wanted, reason = choose_batch_tokens(tokens, bool(facts.base_parameters), row * world)
    whole = max(1, round(wanted / row))
    if whole % world and isinstance(train.batch_tokens, int):
        raise ConfigError(
            f"A batch of {wanted} tokens is {whole} rows, which {world} processes can't share evenly.",
            "Take a number of processes that divides it, or another train.batch_tokens.",
        )
    rows = max(1, round(whole / world))
    if not given:
        rows = min(rows, max(1, facts.train_rows // world))
    if isinstance(train.micro_batch, int):
        micro = min(train.micro_batch, rows)
    elif isinstance(train.gradient_accumulation, int):
        micro = max(1, rows // train.gradient_accumulation)
    else:
        micro = _divisor(
            rows, min(_fitting_rows(facts, shape), max(1, MICRO_BATCH_TOKENS // row) if facts.on_cpu else rows)
        )
    given_accumulation = train.gradient_accumulation
    accumulation = given_accumulation if isinstance(given_accumulation, int) else max(1, round(rows / micro))
    total = micro * accumulation * row * world
    if isinstance(train.batch_tokens, int) and len(given) == 2 and total != train.batch_tokens:
        raise ConfigError(
            f"micro_batch × gradient_accumulation × rows × processes make {total} tokens, batch_tokens says "
            f"{train.batch_tokens}.",
            "Leave one of train.batch_tokens, train.micro_batch and train.gradient_accumulation at auto.",
        )
    pieces = f"{micro} {'row' if micro == 1 else 'rows'} of {row}" + (f" × {accumulation}" if accumulation > 1 else "")
    reasons["batch"] = f"{total} tokens ({pieces}{f' on {world} processes' if world > 1 else ''}): {reason}"
    return micro, accumulation, total


def _divisor(rows: int, limit: int) -> int:
    """The largest divisor of ``rows`` up to ``limit``: accumulation then keeps the batch exactly."""
    return next(size for size in range(max(1, min(rows, limit)), 0, -1) if rows % size == 0)


def _row_bytes(facts: Facts, shape: Shape | None) -> float:
    layers = shape.layers if shape else facts.base_layers
    hidden = shape.hidden if shape else facts.base_hidden
    return facts.sequence_length * layers * hidden * ACTIVATION_BYTES


def _fixed_bytes(facts: Facts, shape: Shape | None) -> float:
    """Weights, gradients and two moments in fp32."""
    return 16.0 * (shape.parameters(facts.vocab_size) if shape else facts.base_parameters)


def _fitting_rows(facts: Facts, shape: Shape | None) -> int:
    free = 0.8 * facts.memory_bytes - _fixed_bytes(facts, shape)
    return max(1, int(free / max(1.0, _row_bytes(facts, shape))))


def _checkpointing(facts: Facts, train: TrainConfig, micro: int, shape: Shape | None, reasons: dict[str, str]) -> bool:
    if train.gradient_checkpointing != "auto":
        return train.gradient_checkpointing
    needed = _fixed_bytes(facts, shape) + micro * _row_bytes(facts, shape)
    if needed > 0.9 * facts.memory_bytes:
        reasons["gradient checkpointing"] = (
            f"on: {needed / 1e9:.1f} GB of activations and weights, {facts.memory_bytes / 1e9:.1f} GB are free"
        )
        return True
    return False


def _rates(facts: Facts, train: TrainConfig, shape: Shape | None, reasons: dict[str, str]) -> tuple[str, Rates]:
    optimizer = train.optimizer
    in_parts = train.shard_model or facts.deepspeed
    if optimizer == "muon" and in_parts:
        holder = "DeepSpeed" if facts.deepspeed else "a sharded model"
        raise ConfigError(
            f"Muon needs whole matrices, and {holder} holds parts of them.", "Use --set train.optimizer=adamw."
        )
    if optimizer == "auto":
        optimizer = "adamw" if facts.base_parameters or in_parts else "muon"
        reasons["optimizer"] = (
            "adamw: a base was made with it"
            if facts.base_parameters
            else "adamw: muon needs whole matrices"
            if in_parts
            else "muon: learns most in the same time"
        )
    hidden = shape.hidden if shape else facts.base_hidden
    found = choose_rates(optimizer, hidden, facts.text_tokens, facts.base_parameters)
    main = found.main if train.learning_rate == "auto" else train.learning_rate
    rates = Rates(
        main,
        found.matrix if train.matrix_learning_rate == "auto" else train.matrix_learning_rate,
        # It follows the rate that was asked for: with a base and with AdamW they are one.
        main * found.embedding / found.main
        if train.embedding_learning_rate == "auto"
        else train.embedding_learning_rate,
        found.beta1 if train.adam_beta1 == "auto" else train.adam_beta1,
    )
    if train.learning_rate == "auto":
        others = f", matrices {rates.matrix:.2g}" if optimizer == "muon" else ""
        others += f", embedding {rates.embedding:.2g}" if rates.embedding != rates.main else ""
        reasons["learning rate"] = f"{rates.main:.2g}{others}: {_why_rates(facts, hidden)}"
    return optimizer, rates


def _why_rates(facts: Facts, hidden: int) -> str:
    if facts.base_parameters:
        return f"gentle, as a base of {facts.base_parameters / 1e6:.0f}M parameters needs it"
    if facts.text_tokens < TINY_TEXT_TOKENS:
        return "more would learn so short a text by heart"
    return "taught most" + (f" at a width of {WIDTH}, scaled to {hidden}" if hidden > WIDTH else "")


def _schedule(train: TrainConfig, warmup: int, reasons: dict[str, str]) -> str:
    """The course of the rates; ``reasons`` receives it with its warm-up."""
    chosen = "linear" if train.schedule == "auto" else train.schedule
    floor = train.min_learning_rate_ratio
    end = "" if chosen == "constant" else f" to {floor:g} of the peak" if floor else " to zero"
    why = "as asked" if chosen == train.schedule else "others learned no more in the same time"
    reasons["schedule"] = f"{chosen}{end}, after {warmup} {'step' if warmup == 1 else 'steps'} of warm-up: {why}"
    return chosen


def _every(setting: int | str, steps: int | None, seconds: float | None) -> int | None:
    """Steps between events; None: by the clock, every tenth of the time; 0: only at the end."""
    if isinstance(setting, int):
        return setting
    if seconds is not None:
        return None
    assert steps is not None
    return max(1, steps // 10) if steps >= 10 else 0


def _logging(train: TrainConfig, expected: int) -> int:
    if isinstance(train.logging_steps, int):
        return train.logging_steps
    return 1 if expected <= LOG_EVERY_STEP_UP_TO else 10
