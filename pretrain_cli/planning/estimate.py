"""Computes what training a model takes on paper: memory by kind, and floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from pretrain_cli.training.measuring.forecast import operations_per_token
from pretrain_cli.training.step.loss import chunk_rows
from pretrain_cli.training.step.optimizers import split_parameters

PROGRAM_CPU, PROGRAM_GPU = 580e6, 900e6
"""Python with torch and transformers loaded, resident; on a GPU its context and the libraries' kernels."""
FRAGMENTS_CPU = 1.35
"""Room that activations take on a CPU over their bytes: the C library can't fill every gap (benchmarks/plan.py)."""
MUON_COPIES = 6
"""Copies of the largest group of equal matrices while they are orthogonalized together."""
STATE_BYTES = {"adamw": 8.0, "8bit": 2.0, "lion": 4.0, "sgd": 0.0, "adafactor": 0.2}
"""Optimizer state per weight, by a word in the optimizer's name; AdamW's two fp32 moments where none fits."""
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
    """

    parameters: int
    multiplied: int
    matrices: int
    largest_group: int
    layers: int
    hidden: int
    vocabulary: int
    activations_fixed: float
    activations_per_row: float
    layer_per_row: float

    def flops_per_token(self, sequence_length: int) -> float:
        """6 a weight (Kaplan et al. 2020, arXiv 2001.08361), and causal attention's scores and sums."""
        return operations_per_token(self.multiplied, self.layers, self.hidden, sequence_length)


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


def count_model(
    model_config: PreTrainedConfig, build: Build, sequence_length: int, masked: bool, precision: str
) -> Counts:
    """Count a model of shape ``model_config`` without holding its weights: torch's fake tensors stand for them.

    Args:
        model_config: transformers' config.
        build: makes the model from a config.
        sequence_length: tokens in a row.
        masked: documents are kept apart in a row.
        precision: "fp32", or "bf16" for autocast.
    """
    layers = int(model_config.num_hidden_layers)

    def kept(depth: int, rows: int) -> int:
        return _kept_bytes(_with_layers(model_config, depth), build, rows, sequence_length, masked, precision)

    row = kept(1, 2) - kept(1, 1)
    fixed = kept(1, 1) - row
    layer_row = kept(2, 2) - kept(2, 1) - row
    layer_fixed = kept(2, 1) - layer_row - row - fixed
    with _fake():
        model = build(model_config)
        matrices = split_parameters(model).matrices
        groups: dict[tuple[int, ...], int] = {}
        for matrix in matrices:
            groups[tuple(matrix.shape)] = groups.get(tuple(matrix.shape), 0) + matrix.numel()
        parameters = model.num_parameters()
        looked_up = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    return Counts(
        parameters=parameters,
        multiplied=parameters - looked_up,
        matrices=sum(groups.values()),
        largest_group=max(groups.values(), default=0),
        layers=layers,
        hidden=int(model_config.hidden_size),
        vocabulary=int(model_config.vocab_size),
        activations_fixed=fixed + (layers - 1) * layer_fixed,
        activations_per_row=row + (layers - 1) * layer_row,
        layer_per_row=layer_row,
    )


def memory_needed(counts: Counts, setup: Setup) -> Memory:
    """Memory on one device while training, by kind.

    The peak is the larger of two moments: all activations with the loss's logits, and the update with all gradients.
    """
    weight_bytes = 2.0 if setup.precision == "bf16-weights" else 4.0
    share = 1 / setup.processes if setup.sharded else 1.0
    weights, gradients = (counts.parameters * weight_bytes * share,) * 2
    optimizer = _optimizer_bytes(counts, setup.optimizer) * share * weight_bytes / 4
    activations = _activation_bytes(counts, setup)
    logits = _logit_bytes(counts, setup)
    buckets = gradients if setup.processes > 1 and not setup.sharded else 0.0  # DDP's own copy, sent as one
    gathered = counts.parameters * weight_bytes / max(1, counts.layers) * 2 if setup.sharded else 0.0
    held = gradients if setup.accumulation > 1 else 0.0
    update = gradients + (MUON_COPIES * counts.largest_group * 4.0 if setup.optimizer == "muon" else 0.0)
    program = PROGRAM_CPU if setup.on_cpu else PROGRAM_GPU
    room = activations * (FRAGMENTS_CPU if setup.on_cpu else 1.0)
    peak = program + weights + optimizer + buckets + gathered + max(room + logits + held, update)
    return Memory(program, weights, gradients + buckets, optimizer, activations, logits, peak)


def ways_to_fit(counts: Counts, setup: Setup, available: float) -> list[str]:
    """Changes that bring the peak under ``available``, the cheapest in speed first; empty where it fits already."""
    if memory_needed(counts, setup).peak <= available:
        return []
    checkpointed = replace(setup, gradient_checkpointing=True)
    one_row = replace(checkpointed, micro_batch=1)
    groups = (
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
        return 4.0 * counts.matrices + 8.0 * (counts.parameters - counts.matrices)
    return counts.parameters * next((size for word, size in STATE_BYTES.items() if word in name), 8.0)


def _activation_bytes(counts: Counts, setup: Setup) -> float:
    if setup.gradient_checkpointing:
        kept = counts.layers * setup.sequence_length * counts.hidden * 4.0
        return counts.activations_fixed + setup.micro_batch * (kept + counts.layer_per_row)
    return counts.activations_fixed + setup.micro_batch * counts.activations_per_row


def _logit_bytes(counts: Counts, setup: Setup) -> float:
    """The head's share: logits, their gradient, and the gradients of what the head reads."""
    tokens = setup.micro_batch * setup.sequence_length
    if not setup.chunked_loss:
        return 3 * 4.0 * tokens * counts.vocabulary
    chunk = min(chunk_rows(counts.vocabulary), tokens) * counts.vocabulary
    return 3 * 4.0 * chunk + 4.0 * counts.vocabulary * counts.hidden + 2 * 4.0 * tokens * counts.hidden


def _with_layers(model_config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    from copy import deepcopy

    changed = deepcopy(model_config)
    changed.num_hidden_layers = layers
    if getattr(changed, "layer_types", None):
        changed.layer_types = changed.layer_types[:layers]
    return changed


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
