"""Chooses a run's model size, length, batches, rates and intervals from facts, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.model.sizes import ENOUGH_FOR_THE_TEXT, Shape, choose_shape, named_shape
from pretrain_cli.training.choices.batch import choose_batch, choose_checkpointing
from pretrain_cli.training.choices.facts import Facts
from pretrain_cli.training.choices.little_text import STUDENT_PASSES, choose_ensemble
from pretrain_cli.training.choices.method import FULL, Method
from pretrain_cli.training.choices.recipe import (
    BASE_PASSES,
    DEFAULT_MINUTES,
    SMALL_BATCH_TOKENS,
    TINY_TEXT_TOKENS,
    WIDTH,
    Rates,
    choose_passes,
    choose_rates,
    choose_warmup,
    factor_for_batch,
)
from pretrain_cli.training.choices.step_cost import FORWARD_SHARE, CostOf, StepCost, assumed_cost

LOG_EVERY_STEP_UP_TO = 2000
LEAST_SHARE_FOR_STEPS = 0.2
"""Of a budget of minutes, whatever starting and ending take."""


@dataclass(frozen=True)
class Plan:
    """The choices.

    Attributes:
        shape: of a model from scratch; None for a base.
        steps: the last step; None where the clock ends the run after ``seconds``.
        seconds: of the budget; None without one.
        expected_steps: about how many there will be.
        cost: what a step takes, as far as is known.
        micro_batch: rows at once on each process.
        accumulation: micro-batches of one optimizer step.
        batch_tokens: of one optimizer step over all processes.
        method: how the base is trained; "full" from scratch.
        save_every: steps between checkpoints; None: by the clock, 0: only at the end.
        eval_every: the same for validations.
        ensemble: models that are trained first and then teach this one.
        teaching_s: seconds that these take, about.
        reasons: name → why, for what was chosen or is worth a line.
    """

    shape: Shape | None
    steps: int | None
    seconds: float | None
    expected_steps: int
    cost: StepCost
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
    ensemble: int = 0
    teaching_s: float = 0.0
    method: Method = FULL
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def batch_rows_per_process(self) -> int:
        return self.micro_batch * self.accumulation

    @property
    def step_seconds(self) -> float:
        """Of one optimizer step, about."""
        return self.cost.step_seconds(self.batch_tokens)

    @property
    def by_clock(self) -> bool:
        """Whether only the clock ends the run."""
        return bool(self.seconds) and not self.steps


def make_plan(
    facts: Facts, train: TrainConfig, size: str = "auto", layers: int | None = None, cost_of: CostOf | None = None
) -> Plan:
    """Choose what ``train`` leaves at auto.

    Args:
        facts: that it follows from.
        train: what is asked for.
        size: name of a shape, or "auto".
        layers: replaces the shape's number of layers.
        cost_of: times steps of a shape; None: they follow from the speed of a matrix product.

    Raises:
        ConfigError: settings that contradict each other, or a size that doesn't exist.
    """
    cost_of = cost_of or (lambda shape: assumed_cost(_operations(facts, shape), facts.flops))
    budget = _budget(facts, train)
    token_limit = _token_limit(facts, train, budget.passes)
    seconds = max(LEAST_SHARE_FOR_STEPS * budget.seconds, budget.seconds - facts.used_s) if budget.seconds else math.inf
    chosen = None if facts.base_parameters else _shape(facts, seconds, token_limit, cost_of, size, layers)
    shape = chosen.value if chosen is not None else None
    cost = cost_of(shape)
    affordable = cost.tokens(seconds, SMALL_BATCH_TOKENS)
    batch = choose_batch(facts, train, min(token_limit, affordable), shape)
    batch_tokens = batch.value.tokens
    affordable = cost.tokens(seconds, batch_tokens)
    by_text = bool(budget.passes and not budget.reason)
    if by_text:
        budget, token_limit = _ended_by_the_text(budget, token_limit, affordable)
    times = affordable / token_limit if by_text and token_limit < math.inf else 0.0
    ensemble = choose_ensemble(train, bool(facts.base_parameters), times, budget.seconds)
    teaching_s = 0.0
    if ensemble.value:
        alone = choose_passes(facts.text_tokens, base=False) * facts.text_tokens
        teaching_s = ensemble.value * cost.step_seconds(batch_tokens) * alone / batch_tokens
        cost = replace(cost, token_s=cost.token_s * (1 + FORWARD_SHARE * ensemble.value))
        affordable = cost.tokens(max(0.0, seconds - teaching_s), batch_tokens)
        if by_text:
            budget, token_limit = replace(budget, reason=""), STUDENT_PASSES * token_limit
    steps = _step_limit(facts, train, batch_tokens, token_limit)
    expected = int(max(1, min(steps or math.inf, affordable / batch_tokens)))
    optimizer = choose_optimizer(facts, train)
    rates = _rates(facts, train, shape, optimizer.value, batch_tokens)
    warmup = train.warmup_steps if isinstance(train.warmup_steps, int) else choose_warmup(expected)
    schedule = _schedule(train, warmup)
    checkpointing = choose_checkpointing(facts, train, batch.value, shape)
    reasons = {
        "budget": budget.reason,
        "ensemble": ensemble.reason,
        "size": f"{shape.name}, {shape.layers} layers of {shape.hidden}: {chosen.reason}" if shape and chosen else "",
        "batch": batch.reason,
        "optimizer": optimizer.reason,
        "learning rate": rates.reason,
        "schedule": schedule.reason,
        "gradient checkpointing": checkpointing.reason,
    }
    return Plan(
        shape=shape,
        steps=steps,
        seconds=budget.seconds,
        expected_steps=expected,
        cost=cost,
        micro_batch=batch.value.micro,
        accumulation=batch.value.accumulation,
        batch_tokens=batch_tokens,
        optimizer=optimizer.value,
        rates=rates.value,
        schedule=schedule.value,
        warmup_steps=warmup,
        save_every=_every(train.save_steps, steps, budget.seconds),
        eval_every=_every(train.eval_steps, steps, budget.seconds),
        logging_every=_logging(train, expected),
        gradient_checkpointing=checkpointing.value,
        ensemble=ensemble.value,
        teaching_s=teaching_s,
        method=facts.method,
        reasons={name: reason for name, reason in reasons.items() if reason},
    )


@dataclass(frozen=True)
class _Budget:
    """Seconds and passes over the text that end the run where the user didn't say; ``reason`` where it was chosen."""

    seconds: float | None
    passes: float | None
    reason: str = ""


def _budget(facts: Facts, train: TrainConfig) -> _Budget:
    seconds = train.max_minutes * 60 if train.max_minutes else None
    passes = choose_passes(facts.text_tokens, bool(facts.base_parameters))
    if any((train.max_steps, train.epochs, train.max_tokens)):
        return _Budget(seconds, None)
    if seconds is not None:
        return _Budget(seconds, passes)
    passes = BASE_PASSES if facts.base_parameters else passes
    minutes = DEFAULT_MINUTES if facts.on_cpu else None
    told = _passes(passes) + (f" or {minutes:g} min, whichever ends first" if minutes else "")
    return _Budget(minutes * 60 if minutes else None, passes, f"{told}: none was given")


def _ended_by_the_text(budget: _Budget, text: float, affordable: float) -> tuple[_Budget, float]:
    """(budget, tokens at most) where only the time was given: more passes over the same text make the model worse.

    Args:
        budget: its seconds and passes.
        text: tokens of that many passes.
        affordable: tokens that the time pays for, by estimate.
    """
    if affordable < ENOUGH_FOR_THE_TEXT * text:
        return budget, math.inf
    assert budget.passes is not None
    reason = (
        f"ends after {_passes(budget.passes)}, or {(budget.seconds or 0) / 60:g} min: more passes would only learn it "
        "by heart (--epochs overrides this)"
    )
    return replace(budget, reason=reason), text


def _passes(number: float) -> str:
    return f"{number:g} {'pass' if number == 1 else 'passes'} over the text"


def _token_limit(facts: Facts, train: TrainConfig, passes: float | None) -> float:
    """Training tokens at most by max_tokens, epochs or max_steps with a known batch; inf where the clock decides."""
    limits = [train.max_tokens or math.inf, (train.epochs or passes or math.inf) * facts.text_tokens]
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


def _shape(
    facts: Facts, seconds: float, token_limit: float, cost_of: CostOf, size: str, layers: int | None
) -> Choice[Shape]:
    if size != "auto":
        return Choice(named_shape(size, layers), ASKED)
    # The text itself bounds what a model can learn.
    text = choose_passes(facts.text_tokens, base=False) * facts.text_tokens
    source = "budget" if token_limit < text else "text"

    def tokens(shape: Shape, enough: float) -> float:
        # No training is faster than a matrix product: what that can't pay for isn't timed.
        most = facts.flops * seconds / _operations(facts, shape)
        return most if most < enough else cost_of(shape).tokens(seconds, SMALL_BATCH_TOKENS)

    return choose_shape(tokens, facts.vocab_size, layers, min(token_limit, text), source)


def _operations(facts: Facts, shape: Shape | None) -> float:
    """Floating-point operations to train on one token."""
    return shape.flops_per_token(facts.vocab_size, facts.sequence_length) if shape else base_operations(facts)


def base_operations(facts: Facts) -> float:
    """Floating-point operations to train a base on one token: only weights that move have gradients of their own."""
    if not facts.method.adapter:
        return 6.0 * facts.base_parameters
    return 4.0 * facts.base_parameters + 6.0 * facts.trained_parameters


def choose_optimizer(facts: Facts, train: TrainConfig) -> Choice[str]:
    """The optimizer's name, with the reason where there was a choice.

    Raises:
        ConfigError: Muon with a model that is split.
    """
    split = train.shard_model or facts.deepspeed
    if train.optimizer == "muon" and split:
        holder = "DeepSpeed" if facts.deepspeed else "a sharded model"
        raise ConfigError(f"Muon needs whole matrices, and {holder} splits them.", "Use --set train.optimizer=adamw.")
    if facts.method.adapter and train.optimizer == "muon":
        raise ConfigError("Muon doesn't train LoRA's matrices.", "Leave train.optimizer at auto.")
    if train.optimizer != "auto":
        return Choice(train.optimizer, f"{train.optimizer}: {ASKED}")
    if facts.short_optimizer:
        return Choice(facts.short_optimizer, f"{facts.short_optimizer}: AdamW's moments don't fit the memory")
    if facts.base_parameters:
        why = "LoRA's rates are known for it" if facts.method.adapter else "the base was trained with it"
        return Choice("adamw", f"adamw: {why}")
    if split:
        return Choice("adamw", "adamw: muon needs whole matrices")
    return Choice("muon", "muon: learns most in the same time")


def _rates(facts: Facts, train: TrainConfig, shape: Shape | None, optimizer: str, batch_tokens: int) -> Choice[Rates]:
    hidden = shape.hidden if shape else facts.base_hidden
    method = facts.method
    found = choose_rates(optimizer, hidden, facts.text_tokens, facts.base_parameters, method.adapter, batch_tokens)
    main = found.main if train.learning_rate == "auto" else train.learning_rate
    rates = Rates(
        main,
        found.matrix if train.matrix_learning_rate == "auto" else train.matrix_learning_rate,
        # It follows the rate that was asked for: with a base and with AdamW they are one.
        main * found.embedding / found.main
        if train.embedding_learning_rate == "auto"
        else train.embedding_learning_rate,
        found.beta1 if train.adam_beta1 == "auto" else train.adam_beta1,
        found.beta2 if train.adam_beta2 == "auto" else train.adam_beta2,
    )
    others = f", matrices {rates.matrix:.2g}" if optimizer == "muon" else ""
    others += "" if math.isclose(rates.embedding, rates.main) else f", embedding {rates.embedding:.2g}"
    why = _why_rates(facts, hidden) if train.learning_rate == "auto" else ASKED
    if train.learning_rate == "auto" and (larger := factor_for_batch(batch_tokens)) > 1:
        why += f"; {larger:.2g} times that, as a batch has {batch_tokens:,} tokens"
    return Choice(rates, f"{rates.main:.2g}{others}: {why}")


def _why_rates(facts: Facts, hidden: int) -> str:
    if facts.method.adapter:
        return "ten times that of full training, as LoRA's matrices begin at zero"
    if facts.base_parameters:
        return f"low, so that a base of {facts.base_parameters / 1e6:.0f}M parameters keeps what it knows"
    if facts.text_tokens < TINY_TEXT_TOKENS:
        return "higher rates would learn so short a text by heart"
    return "learned most in our measurements" + (f" at width {WIDTH}, scaled to {hidden}" if hidden > WIDTH else "")


def _schedule(train: TrainConfig, warmup: int) -> Choice[str]:
    """How the rates move; the reason names the warm-up too."""
    chosen = "linear" if train.schedule == "auto" else train.schedule
    floor = train.min_learning_rate_ratio
    end = "" if chosen == "constant" else f" to {floor:g} of the peak" if floor else " to zero"
    why = ASKED if chosen == train.schedule else "no other learned more in the same time"
    return Choice(chosen, f"{chosen}{end}, after {warmup} {'step' if warmup == 1 else 'steps'} of warm-up: {why}")


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
