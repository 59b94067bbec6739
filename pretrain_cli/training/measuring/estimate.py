"""Computes what training a model takes on paper: memory by kind, and floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.model.limits import size_of, with_layers
from pretrain_cli.model.probes import head_is_plain
from pretrain_cli.training.choices.method import FULL, Method
from pretrain_cli.training.choices.optimizer_bytes import (
    ADAMW_BYTES,
    MUON_BYTES,
    PROJECTED,
    projected_bytes,
    state_bytes,
)
from pretrain_cli.training.measuring.beside import Adapt, Beside
from pretrain_cli.training.measuring.forecast import operations_per_token
from pretrain_cli.training.step.loss import logit_bytes
from pretrain_cli.training.step.optimizers import split_parameters

PROGRAM_CPU, PROGRAM_GPU = (1030e6 if torch.version.cuda else 580e6), 900e6
"""Python with torch and transformers loaded, resident: more with torch's CUDA build, without a GPU too. On a GPU its
context and the libraries' kernels."""
FRAGMENTS_CPU = 1.35
"""Room that activations take on a CPU over their bytes: the C library can't fill every gap (benchmarks/plan.py)."""
MUON_COPIES = 6
"""Copies of the largest group of equal matrices while they are orthogonalized together."""
ADAPTER_BYTES = 4.0
"""LoRA's matrices are fp32 whatever the base is held in."""
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight in NF4: half a byte, and a byte of scale for each 64 of them, itself scaled (arXiv 2305.14314)."""
UNPACKED = 4.0
"""Bytes a weight of the one layer that is unpacked at a time."""
SHARDED_BF16 = "bf16-sharded"
"""Not a setting: what sharding in bf16 computes in, where autocast would keep a copy of each weight."""
Build = Callable[[PreTrainedConfig], PreTrainedModel]
"""Makes a model with random weights from its config."""
KINDS = ("program", "weights", "gradients", "optimizer", "activations", "logits")


@dataclass(frozen=True)
class Counts:
    """A model in numbers; activations count what autograd keeps for the backward pass.

    Attributes:
        parameters: all weights.
        multiplied: weights that each token is multiplied with.
        matrices: weights that Muon moves.
        largest_group: weights of the largest group of equally shaped matrices.
        layers, hidden, vocabulary: its shape.
        activations_fixed, activations_per_row: bytes of the body, for no row and for each further one.
        layer_per_row: what one layer adds to them.
        adapted: weights of the linear layers that LoRA stands beside.
        adapter: weights of LoRA's matrices; 0 where all weights are trained.
        largest_matrix: weights of the largest layer that LoRA stands beside.
        plain_head: whether the loss can be computed without all logits, as far as the model's code tells.
    """

    parameters: int
    multiplied: int
    matrices: int
    largest_group: int
    layers: int
    hidden: int
    vocabulary: int
    activations_fixed: float = 0.0
    activations_per_row: float = 0.0
    layer_per_row: float = 0.0
    adapted: int = 0
    adapter: int = 0
    largest_matrix: int = 0
    plain_head: bool = True

    @property
    def trained(self) -> int:
        """Weights that move."""
        return self.adapter or self.parameters

    def flops_per_token(self, sequence_length: int) -> float:
        """6 a weight (Kaplan et al. 2020, arXiv 2001.08361), and causal attention's scores and sums."""
        moved = self.adapter or self.multiplied
        return operations_per_token(self.multiplied + self.adapter, self.layers, self.hidden, sequence_length, moved)


@dataclass(frozen=True)
class Setup:
    """How the model is trained, as far as memory follows from it."""

    micro_batch: int
    accumulation: int
    sequence_length: int
    optimizer: str
    precision: str
    gradient_checkpointing: bool
    chunked_loss: bool
    processes: int = 1
    sharded: bool = False
    on_cpu: bool = True
    method: Method = FULL


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by kind. They aren't all held at once: ``peak`` is the most that is."""

    program: float
    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    peak: float


def count_weights(model_config: PreTrainedConfig, build: Build, adapt: Adapt | None = None) -> Counts:
    """Count the weights of a model of shape ``model_config`` without holding them; its activations stay at 0.

    Args:
        model_config: transformers' config.
        build: makes the model from a config.
        adapt: puts LoRA's matrices beside its layers; None: all weights are trained.
    """
    with torch.device("meta"):
        model = build(model_config)
        parameters, plain_head = model.num_parameters(), head_is_plain(model)
        if adapt is not None:
            adapt(model)
    layers = [module for module in model.modules() if isinstance(module, Beside)]
    sizes = [layer.base_weights for layer in layers]
    groups: dict[tuple[int, ...], int] = {}
    for matrix in split_parameters(model).matrices:
        groups[tuple(matrix.shape)] = groups.get(tuple(matrix.shape), 0) + matrix.numel()
    looked_up = (
        0 if getattr(model.config, "tie_word_embeddings", False) else model.get_input_embeddings().weight.numel()
    )
    return Counts(
        parameters=parameters,
        multiplied=parameters - looked_up,
        matrices=sum(groups.values()),
        largest_group=max(groups.values(), default=0),
        layers=size_of(model_config, "num_hidden_layers", 12),
        hidden=size_of(model_config, "hidden_size", 1024),
        vocabulary=size_of(model_config, "vocab_size", 50_000),
        adapted=sum(sizes),
        adapter=sum(layer.own_weights for layer in layers),
        largest_matrix=max(sizes, default=0),
        plain_head=plain_head,
    )


def count_model(
    model_config: PreTrainedConfig,
    build: Build,
    sequence_length: int,
    masked: bool,
    precision: str,
    adapt: Adapt | None = None,
) -> Counts:
    """Count a model of shape ``model_config``, its activations too: torch's fake tensors stand for its weights.

    Args:
        model_config: transformers' config.
        build: makes the model from a config.
        sequence_length: tokens in a row.
        masked: documents are kept apart in a row.
        precision: see `train.precision`; fp16 takes what bf16 does. `SHARDED_BF16`: the weights are gathered in bf16.
        adapt: puts LoRA's matrices beside its layers, see `beside`; None: all weights are trained.
    """
    counts = count_weights(model_config, build, adapt)
    precision = "bf16" if precision == "fp16" else precision
    gathered = precision == SHARDED_BF16

    def adapted(model_config: PreTrainedConfig) -> PreTrainedModel:
        if adapt is None:
            return _in_bf16(build, model_config) if gathered else build(model_config)
        model_config.dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        model = build(model_config)
        adapt(model)
        return model

    def kept(depth: int, rows: int) -> int:
        return _kept_bytes(with_layers(model_config, depth), adapted, rows, sequence_length, masked, precision)

    row = kept(1, 2) - kept(1, 1)
    fixed = kept(1, 1) - row
    layer_row = kept(2, 2) - kept(2, 1) - row
    layer_fixed = kept(2, 1) - layer_row - row - fixed
    return replace(
        counts,
        activations_fixed=fixed + (counts.layers - 1) * layer_fixed,
        activations_per_row=row + (counts.layers - 1) * layer_row,
        layer_per_row=layer_row,
    )


def memory_needed(counts: Counts, setup: Setup) -> Memory:
    """Memory on one device while training, by kind.

    The peak is the larger of two moments: all activations with the loss's logits, and the update with all gradients.
    """
    weight_bytes = 2.0 if setup.precision == "bf16-weights" else 4.0
    share = 1 / setup.processes if setup.sharded else 1.0
    held_at = ADAPTER_BYTES if setup.method.adapter else weight_bytes
    weights, gradients = base_bytes(counts, setup) * share, counts.trained * held_at * share
    optimizer = _optimizer_bytes(counts, setup.optimizer) * share * held_at / 4
    activations = _activation_bytes(counts, setup)
    logits = _logit_bytes(counts, setup) + (UNPACKED * counts.largest_matrix if setup.method.four_bit else 0.0)
    buckets = gradients if setup.processes > 1 and not setup.sharded else 0.0  # DDP's own copy, sent as one
    gathered = _gathered_bytes(counts, setup) if setup.sharded else 0.0
    held = gradients if setup.accumulation > 1 else 0.0
    update = gradients + (MUON_COPIES * counts.largest_group * 4.0 if setup.optimizer == "muon" else 0.0)
    program = PROGRAM_CPU if setup.on_cpu else PROGRAM_GPU
    room = activations * (FRAGMENTS_CPU if setup.on_cpu else 1.0)
    peak = program + weights + optimizer + buckets + gathered + max(room + logits + held, update)
    return Memory(program, weights, gradients + buckets, optimizer, activations, logits, peak)


def _gathered_bytes(counts: Counts, setup: Setup) -> float:
    """Weights that a sharded model has whole at once: two layers, one computing and one on its way, and the head."""
    each = 2.0 if setup.precision.startswith("bf16") else 4.0
    ends = counts.vocabulary * counts.hidden
    return each * (2 * max(0, counts.parameters - 2 * ends) / max(1, counts.layers) + ends)


def base_bytes(counts: Counts, setup: Setup) -> float:
    """Bytes of the model's weights: under LoRA a base that doesn't move is held in what it is computed in."""
    if not setup.method.adapter:
        return counts.parameters * (2.0 if setup.precision == "bf16-weights" else 4.0)
    own = counts.adapter * ADAPTER_BYTES
    each = 4.0 if setup.precision == "fp32" else 2.0
    packed = counts.adapted if setup.method.four_bit else 0
    return own + packed * FOUR_BITS + (counts.parameters - packed) * each


def ways_to_fit(counts: Counts, setup: Setup, available: float) -> list[str]:
    """Changes that bring the peak under ``available``, the cheapest in speed first; empty where it fits already."""
    if memory_needed(counts, setup).peak <= available:
        return []
    checkpointed = replace(setup, gradient_checkpointing=True)
    one_row = replace(checkpointed, micro_batch=1)
    groups: tuple[dict[str, Setup], ...] = (
        {
            f"train.micro_batch = {rows}": replace(setup, micro_batch=rows, accumulation=2)
            for rows in _halvings(setup.micro_batch)
        },
        {
            "train.gradient_checkpointing = true": checkpointed,
            "train.gradient_checkpointing = true with train.micro_batch = 1": one_row,
            "the same with train.precision = 'bf16-weights'": replace(one_row, precision="bf16-weights"),
        },
        {
            f"--shard-model over {number} devices": replace(one_row, processes=number, sharded=True)
            for number in (2, 4, 8, 16, 32, 64, 128)
            if number >= setup.processes
        },
    )
    ways = []
    for group in groups:
        peaks = {text: memory_needed(counts, change).peak for text, change in group.items()}
        ways += [f"{text}: {peak / 1e9:.1f} GB" for text, peak in peaks.items() if peak <= available][:1]
    return ways or [f"a smaller model: this one needs {memory_needed(counts, setup).peak / 1e9:.1f} GB"]


def _halvings(rows: int) -> list[int]:
    sizes = []
    while rows > 1:
        rows //= 2
        sizes.append(rows)
    return sizes


def _optimizer_bytes(counts: Counts, name: str) -> float:
    if name == "muon":
        return MUON_BYTES * counts.matrices + ADAMW_BYTES * (counts.parameters - counts.matrices)
    if name.startswith(PROJECTED):
        return projected_bytes(counts.hidden) * counts.matrices + ADAMW_BYTES * (counts.parameters - counts.matrices)
    return counts.trained * state_bytes(name)


def _activation_bytes(counts: Counts, setup: Setup) -> float:
    if setup.gradient_checkpointing:
        kept = counts.layers * setup.sequence_length * counts.hidden * 4.0
        return counts.activations_fixed + setup.micro_batch * (kept + counts.layer_per_row)
    return counts.activations_fixed + setup.micro_batch * counts.activations_per_row


def _logit_bytes(counts: Counts, setup: Setup) -> float:
    """The head's share: logits, their gradient, and the gradients of what the head reads."""
    tokens = setup.micro_batch * setup.sequence_length
    if not (setup.chunked_loss and counts.plain_head):
        return 3 * 4.0 * tokens * counts.vocabulary
    return logit_bytes(counts.vocabulary, counts.hidden, tokens, setup.on_cpu, not setup.method.adapter)


def _in_bf16(build: Build, model_config: PreTrainedConfig) -> PreTrainedModel:
    model = build(model_config)
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    return model


def _fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def _kept_bytes(
    model_config: PreTrainedConfig, build: Build, rows: int, length: int, masked: bool, precision: str
) -> int:
    """Bytes that autograd keeps for the backward pass of the model's body, its own weights left out."""
    with _fake():
        model = build(model_config).train()
        model.config.use_cache = False
        own = {weight.untyped_storage()._cdata for weight in model.parameters()}
        kept: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage  # held, so that no other tensor takes its place in memory
            return tensor

        ids = torch.zeros(rows, length, dtype=torch.int64)
        positions = torch.arange(length).repeat(rows, 1) if masked else None
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            hidden = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        del hidden
        return sum(storage.nbytes() for storage in kept.values())
