"""Measures what the choices of the recipe gain: `python benchmarks/ablation.py FOLDER`, on prepared rows.

Each line changes one choice, and trains for the same CPU time on one thread: time that this process has computed, so
that other work on the machine doesn't spoil it; or, with --tokens, on as many tokens. Model, loss, optimizers, rates
and rows are ptk's own; what ptk has no setting for (weight averages, growing batches or rows, other activations) is
done here, in the loop. Held-out bits per byte are those of all validation rows, each row alone. The first line takes
three seeds: differences within their spread are none.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from learning import resolved
from torch import nn

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.training.context import TrainingContext, open_unrecorded
from pretrain_cli.training.measuring.scoring import validate
from pretrain_cli.training.rows.feed import Feed
from pretrain_cli.training.rows.order import RowOrder
from pretrain_cli.training.step.loss import attach_loss
from pretrain_cli.training.step.optimizers import MuonAdamW, make_optimizer
from pretrain_cli.training.step.schedules import rate_factor

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Variation:
    """One change of the recipe.

    Attributes:
        name: what is changed.
        settings: of ptk's config; "2x" multiplies what the dial chose.
        model: changes the model before its first step.
        rows: rows of a step at a share of the run that is done.
        length: tokens of a row at a share of the run that is done.
        ema: decay of a running average of the weights, which is scored in their place; 0: none.
        tail: share of the run over whose end weights are averaged; 0: none.
        momentum: of muon, at a share of the run that is done.
        optimizer: changes the optimizer before its first step.
        another: makes the model that is trained in place of the run's own.
    """

    name: str
    settings: tuple[str, ...] = ()
    model: Change | None = None
    rows: Callable[[float], int] | None = None
    length: Callable[[float], int] | None = None
    ema: float = 0.0
    tail: float = 0.0
    momentum: Callable[[float], float] | None = None
    optimizer: Change | None = None
    another: Callable[[Any], Any] | None = None


def usual_init(model: Any) -> None:
    """Normal with 0.02 everywhere, as transformers has it."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)


def scaled_init(model: Any) -> None:
    """Output projections at 1/√(2 · layers · fan in) in place of zero (GPT-2)."""
    for name, module in model.named_modules():
        if name.endswith(("o_proj", "down_proj")):
            nn.init.normal_(module.weight, std=1 / math.sqrt(2 * model.config.num_hidden_layers * module.in_features))


def tied(model: Any) -> None:
    model.lm_head.weight = model.model.embed_tokens.weight


def rope_theta(base: float) -> Change:
    def change(model: Any) -> None:
        rotary = model.model.rotary_emb
        size = rotary.inv_freq.shape[0]
        rotary.inv_freq.copy_(base ** -(torch.arange(size).float() / size))

    return change


def times(group: int, factor: float) -> Change:
    """Another rate for a group of the optimizer: 0 head and norms, 1 embedding, 2 matrices."""

    def change(optimizer: Any) -> None:
        optimizer.param_groups[group]["lr"] *= factor

    return change


def normalized(optimizer: Any) -> None:
    """NorMuon (arXiv 2510.05491): each row of an orthogonal update over the root of its mean square so far."""
    optimizer.__class__ = type("NorMuon", (MuonAdamW,), {"_move": _normalized_move})


def _normalized_move(self: Any, parameters: list[torch.Tensor], group: dict[str, Any], turn: int) -> int:
    before = [parameter.clone() for parameter in parameters]
    decayed = {**group, "weight_decay": 0.0}
    turns = MuonAdamW._move(self, parameters, decayed, turn)
    for parameter, old in zip(parameters, before, strict=True):
        update = old - parameter
        along = -1 if update.shape[0] >= update.shape[1] else -2
        square = (update / group["lr"]).square().mean(along, keepdim=True) if group["lr"] else update[:, :1] * 0
        state = self.state[parameter]
        second = state.setdefault("row_square", torch.zeros_like(square)).lerp_(square, 0.05)
        scaled = update / (second.sqrt() + 1e-10)
        parameter.copy_(old * (1 - group["lr"] * group["weight_decay"]))
        parameter.sub_(scaled * (update.norm() / (scaled.norm() + 1e-10)))
    return turns


def cautious(optimizer: Any) -> None:
    """Weight decay only where the update goes towards zero anyway (arXiv 2510.12402)."""
    optimizer.__class__ = type("CautiousMuon", (MuonAdamW,), {"_move": _cautious_move})


def _cautious_move(self: Any, parameters: list[torch.Tensor], group: dict[str, Any], turn: int) -> int:
    before = [parameter.clone() for parameter in parameters]
    turns = MuonAdamW._move(self, parameters, {**group, "weight_decay": 0.0}, turn)
    for parameter, old in zip(parameters, before, strict=True):
        parameter.sub_(old * ((old - parameter) * old > 0) * (group["lr"] * group["weight_decay"]))
    return turns


def grouped(heads: int) -> Callable[[Any], Any]:
    """The same model with fewer heads for keys and values."""

    def make(model: Any) -> Any:
        settings = {**model.config.to_dict(), "num_key_value_heads": heads}
        return ready(type(model)(type(model.config)(**settings)), ("o_proj", "down_proj"))

    return make


def convolving(*layers: str, mlp: int = 384) -> Callable[[Any], Any]:
    """LFM2's layers: "conv" is a short convolution with gates in place of attention."""

    def make(model: Any) -> Any:
        from transformers import Lfm2Config, Lfm2ForCausalLM

        own = model.config
        config = Lfm2Config(
            vocab_size=own.vocab_size, hidden_size=own.hidden_size, intermediate_size=mlp, layer_types=list(layers),
            num_hidden_layers=len(layers), num_attention_heads=own.num_attention_heads, norm_eps=own.rms_norm_eps,
            num_key_value_heads=own.num_key_value_heads, max_position_embeddings=own.max_position_embeddings,
            tie_word_embeddings=False, block_auto_adjust_ff_dim=False, bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id, initializer_range=own.initializer_range,
            rope_parameters=own.rope_parameters,
        )  # fmt: skip
        return ready(Lfm2ForCausalLM(config), ("out_proj", "w2"))

    return make


def ready(model: Any, outputs: tuple[str, ...]) -> Any:
    """A model with the recipe's initialization."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.0 if name.endswith(outputs) else 1 / math.sqrt(module.in_features))
    return model


VARIATIONS = (
    Variation("as it is"),
    Variation("AdamW, rate 2e-3", ("train.optimizer=adamw", "train.learning_rate=2e-3")),
    Variation("AdamW, rate 4e-3", ("train.optimizer=adamw", "train.learning_rate=4e-3")),
    Variation("AdamW, rate 8e-3", ("train.optimizer=adamw", "train.learning_rate=8e-3")),
    Variation(
        "AdamW 4e-3, embedding 0.05",
        ("train.optimizer=adamw", "train.learning_rate=4e-3", "train.embedding_learning_rate=0.05"),
    ),
    Variation("half the rates", ("train.learning_rate=0.5x", "train.matrix_learning_rate=0.5x")),
    Variation("twice the rates", ("train.learning_rate=2x", "train.matrix_learning_rate=2x")),
    Variation("one rate for all but matrices", ("train.learning_rate=0.02", "train.embedding_learning_rate=0.02")),
    Variation("AdamW's beta1 0.9", ("train.adam_beta1=0.9",)),
    Variation("cosine", ("train.schedule=cosine",)),
    Variation("wsd", ("train.schedule=wsd",)),
    Variation("linear to a tenth", ("train.min_learning_rate_ratio=0.1",)),
    Variation("no warm-up", ("train.warmup_steps=0",)),
    Variation("constant, last fifth averaged", ("train.schedule=constant",), tail=0.2),
    Variation("last tenth averaged", tail=0.1),
    Variation("EMA 0.98", ema=0.98),
    Variation("4 rows a step", rows=lambda done: 4),
    Variation("16 rows a step", rows=lambda done: 16),
    Variation("4 rows, then 8, then 16", rows=lambda done: (4, 8, 16)[min(2, int(3 * done))]),
    Variation("rows of 64, 128, then 256", length=lambda done: (64, 128, 256, 256)[min(3, int(4 * done))]),
    Variation("no weight decay", ("train.weight_decay=0",)),
    Variation("weight decay 0.3", ("train.weight_decay=0.3",)),
    Variation("z-loss 1e-4", ("train.z_loss=1e-4",)),
    Variation("no clipping", ("train.max_grad_norm=0",)),
    Variation("muon's momentum from 0.85", momentum=lambda done: 0.85 + 0.1 * min(1, done / 0.3)),
    Variation("no QK norm (Llama)", ("model.family=llama",)),
    Variation("squared ReLU", ("model.activation=relu2",)),
    Variation("tied embedding", model=tied),
    Variation("usual init", model=usual_init),
    Variation("outputs not at zero", model=scaled_init),
    Variation("rotary base 1 000", model=rope_theta(1000.0)),
    Variation("2 layers", ("model.layers=2",)),
    Variation("6 layers", ("model.layers=6",)),
    Variation("mini (6 of 256)", ("model.size=mini",)),
    Variation("fp32", ("train.precision=fp32",)),
    Variation("NorMuon", optimizer=normalized),
    Variation("cautious weight decay", optimizer=cautious),
    Variation("embedding's rate twice", optimizer=times(1, 2)),
    Variation("head's rate twice", optimizer=times(0, 2)),
    Variation("matrices' rate 1.5 times", optimizer=times(2, 1.5)),
    Variation("AdamW's beta2 0.95", ("train.adam_beta2=0.95",)),
    Variation("AdamW's beta2 0.99", ("train.adam_beta2=0.99",)),
    Variation("muon's momentum 0.9", momentum=lambda done: 0.9),
    Variation("one head for keys and values", another=grouped(1)),
    Variation("convolution, attention", another=convolving("conv", "full_attention")),
    Variation("convolution, attention, convolution", another=convolving("conv", "full_attention", "conv")),
    Variation("the same, MLP of 256", another=convolving("conv", "full_attention", "conv", mlp=256)),
)


@dataclass
class Course:
    """A training that is under way."""

    context: TrainingContext
    model: Any
    variation: Variation
    steps: int = 0
    tokens: int = 0
    average: list[torch.Tensor] = field(default_factory=list)
    averaged: int = 0


def begin(
    folder: Path,
    variation: Variation,
    seed: int,
    dial: dict[str, Any],
    base: str = "",
    preset: str | None = None,
    minutes: float = 1.5,
) -> Course:
    """Model and plan for ``variation``; ``dial`` has what the dial chose, for settings such as "2x"."""
    settings = [resolved(setting, dial) for setting in variation.settings]
    flags = {"train.max_minutes": minutes, "train.seed": seed, "train.threads": 1, "train.device": "cpu"}
    config = load_config(preset=preset, flags={**flags, "model.base": base}, assignments=settings).config
    context = open_unrecorded(config, Artifacts(folder))
    if variation.model is not None:
        variation.model(context.model)
    model = context.model
    if variation.another is not None:
        torch.manual_seed(seed)
        model = variation.another(model)
    return Course(context, model.train(), variation)


def learn(course: Course, seconds: float = math.inf, tokens: float = math.inf) -> None:
    """Train for ``seconds`` of CPU time, or on so many tokens."""
    context, model, variation = course.context, course.model, course.variation
    plan, train, machine = context.plan, context.config.train, context.machine
    attach_loss(model, True, train.z_loss)
    optimizer = make_optimizer(model, plan.optimizer, train, plan.rates, machine.matmul_dtype)
    if variation.optimizer is not None:
        variation.optimizer(optimizer)
    peaks = [group["lr"] for group in optimizer.param_groups]
    order = RowOrder(len(context.rows.train), 1, 10**7, train.seed)
    feed = Feed(context.rows.train, order, 0, False, lambda text: None)
    began = time.process_time()
    while (done := max((time.process_time() - began) / seconds, course.tokens / tokens)) < 1:
        warm = min(1.0, (course.steps + 1) / (plan.warmup_steps + 1))
        factor = warm * rate_factor(plan.schedule, done, train.min_learning_rate_ratio)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
            if variation.momentum is not None and group.get("muon"):
                group["momentum"] = variation.momentum(done)
        rows = variation.rows(done) if variation.rows else plan.micro_batch * plan.accumulation
        batch = stacked(feed.take(rows), variation.length(done) if variation.length else 0)
        with torch.autocast("cpu", torch.bfloat16) if machine.precision == "bf16" else contextlib.nullcontext():
            loss = model(**batch)["loss"]
        loss.backward()
        if train.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        course.steps += 1
        course.tokens += batch["input_ids"].numel()
        remember(course, done)


def stacked(rows: list[dict[str, torch.Tensor]], length: int) -> dict[str, torch.Tensor]:
    """One batch of all rows; with ``length``, each cut into rows of so many tokens, whose positions begin anew."""
    batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    if length:
        batch = {name: tensor.reshape(-1, length) for name, tensor in batch.items()}
        if "position_ids" in batch:
            batch["position_ids"] = batch["position_ids"] - batch["position_ids"][:, :1]
    return batch


@torch.no_grad()
def remember(course: Course, done: float) -> None:
    """Take the weights of this step into the average, where the variation has one."""
    weights, decay = list(course.model.parameters()), course.variation.ema
    if not decay and done < 1 - course.variation.tail:
        return
    if not course.average:
        course.average = [weight.clone() for weight in weights]
    course.averaged += 1
    share = 1 - decay if decay else 1 / course.averaged
    torch._foreach_lerp_(course.average, weights, share)


def score(course: Course) -> float:
    """Held-out bits per byte; of the average of weights, where there is one."""
    if course.average:
        for weight, average in zip(course.model.parameters(), course.average, strict=True):
            weight.data.copy_(average)
    rows, precision = course.context.rows, course.context.machine.precision
    assert rows.validation is not None
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
        found = validate(
            course.model.eval(),
            rows.validation,
            rows=len(rows.validation),
            batch_rows=8,
            device=torch.device("cpu"),
            tokens_per_byte=rows.validation_tokens_per_byte,
        )
    assert found is not None and found.bits_per_byte is not None
    return found.bits_per_byte


def run(
    folder: Path, variation: Variation, seconds: float, tokens: float, seeds: Iterable[int], dial: dict[str, Any]
) -> None:
    """Train and score with each seed, and print the line."""
    bits, course = [], None
    for seed in seeds:
        course = begin(folder, variation, seed, dial)
        learn(course, seconds, tokens)
        bits.append(score(course))
    assert course is not None
    spread = f"{min(bits):.3f} to {max(bits):.3f}" if len(bits) > 1 else ""
    parameters = sum(weight.numel() for weight in course.model.parameters()) / 1e6
    figures = f"{sorted(bits)[len(bits) // 2]:.3f} | {spread} | {course.steps} | {course.tokens / 1e6:.2f} M"
    print(f"| {variation.name} | {figures} | {parameters:.2f} M |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="artifact folder with prepared rows")
    parser.add_argument("--seconds", type=float, default=75.0, help="of CPU time, each")
    parser.add_argument("--tokens", type=float, default=0.0, help="to train on, in place of a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="default: 0, and 0 1 2 for the first line")
    parser.add_argument("--only", nargs="+", default=[], help="variations whose name holds one of these")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    quiet_libraries()
    plan = begin(given.folder, Variation("dial"), 0, {}).context.plan
    dial = {
        "learning_rate": plan.rates.main,
        "matrix_learning_rate": plan.rates.matrix,
        "embedding_learning_rate": plan.rates.embedding,
    }
    print("| changed | bits per byte | over seeds | steps | tokens | weights |\n| --- | --- | --- | --- | --- | --- |")
    for index, variation in enumerate(VARIATIONS):
        if not given.only or any(word in variation.name for word in given.only):
            seeds = given.seeds or ((0, 1, 2) if index == 0 else (0,))
            seconds, tokens = (math.inf, given.tokens) if given.tokens else (given.seconds, math.inf)
            run(given.folder, variation, seconds, tokens, seeds, dial)


if __name__ == "__main__":
    main()
