"""A decoding loop for Llama-, Mistral- and Qwen-shaped models: transformers' arithmetic, without its imports and overhead.

One token at a time, the time goes into streaming the weights from memory. torch's product of one row takes a single
thread on many CPUs (10 GB/s here); multiplying the stored weights by the row and adding up takes all of them (21 GB/s),
needs no other layout and no copy. A few milliseconds of timing tell which is faster on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain_cli.errors import ModelError
from pretrain_cli.model.rope import inverse_frequencies, is_known_rope

CACHED_VALUES = 2_000_000
"""Products at a time, 8 MB: they are added up before they leave the cache."""
TIMED_ROWS = 2048


@dataclass(frozen=True)
class Shape:
    """What the loop needs to know of a model's config.json."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    inverse_frequency: Tensor
    context: int
    tied: bool


def lean_shape(config: dict[str, Any]) -> Shape | None:
    """The shape of a model this loop computes exactly, or None: transformers' own code has to run it."""
    known = config.get("model_type") in ("llama", "mistral", "qwen2", "qwen3") and is_known_rope(config)
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    if not known or windowed or config.get("quantization_config") or config.get("hidden_act", "silu") != "silu":
        return None
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    return Shape(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        eps=float(config.get("rms_norm_eps", 1e-6)),
        inverse_frequency=inverse_frequencies(config, head_dim),
        context=int(config.get("max_position_embeddings", 2048)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


@dataclass(frozen=True)
class Projection:
    """One or more linear maps of the same input, their outputs side by side.

    ``weights`` are as stored, [out, in] each and memory-mapped; ``summed``: one row goes through `row_product`.
    """

    weights: tuple[Tensor, ...]
    bias: Tensor | None
    summed: bool

    def __call__(self, x: Tensor) -> Tensor:
        one_row = self.summed and x.numel() == x.shape[-1]
        parts = [row_product(x, weight) if one_row else F.linear(x, weight) for weight in self.weights]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y if self.bias is None else y + self.bias


def row_product(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` of one row [..., in], as a product that stays in the cache and its sums."""
    rows = max(1, CACHED_VALUES // weight.shape[1])
    row = x.reshape(-1)
    sums = [(part * row).sum(dim=1) for part in torch.split(weight, rows)]
    return (sums[0] if len(sums) == 1 else torch.cat(sums)).view(*x.shape[:-1], -1)


def summing_pays(weight: Tensor) -> bool:
    """Whether `row_product` is a fifth faster than torch's own product of one row on this machine."""
    if weight.device.type != "cpu":
        return False
    parts = torch.split(weight[: 4 * TIMED_ROWS], TIMED_ROWS)
    row = torch.ones(1, weight.shape[1], dtype=weight.dtype)

    def fastest(product: Callable[[Tensor, Tensor], Tensor]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            for part in parts:
                product(row, part)
            times.append(time.perf_counter() - started)
        return min(times)

    fastest(F.linear)  # the first pass reads the weights from the disk and wakes the threads
    return fastest(row_product) * 1.2 < fastest(F.linear)


@dataclass(frozen=True)
class Layer:
    input_norm: Tensor
    qkv: Projection
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Projection
    post_norm: Tensor
    gate_up: Projection
    down: Projection


class LeanModel:
    """Weights laid out for decoding, and the key-value cache of the batch being written.

    ``start`` reads prompts, ``step`` adds one token to each row; both give logits float32[B, V].
    """

    def __init__(self, weights: dict[str, Tensor], shape: Shape, device: str, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, torch.device(device), dtype
        self.context = shape.context
        self.embedding = self._take(weights, "model.embed_tokens.weight")
        self.norm = self._take(weights, "model.norm.weight")
        self.summed = summing_pays(self.embedding)
        self.layers = [self._layer(weights, index) for index in range(shape.layers)]
        head = (
            self.embedding if shape.tied or "lm_head.weight" not in weights else self._take(weights, "lm_head.weight")
        )
        self.head = Projection((head,), None, self.summed)
        self.vocab_size = head.shape[0]
        self.inverse_frequency = shape.inverse_frequency.to(self.device)
        self.lengths: list[int] = []

    def _take(self, weights: dict[str, Tensor], name: str) -> Tensor:
        if name not in weights:
            raise ModelError(f"The weights lack '{name}'.", "The folder's config.json and its weights don't match.")
        return weights[name].to(self.device, self.dtype)

    def _projection(self, weights: dict[str, Tensor], *names: str) -> Projection:
        stacked = [self._take(weights, f"{name}.weight") for name in names]
        biases = [self._take(weights, f"{name}.bias") for name in names if f"{name}.bias" in weights]
        return Projection(tuple(stacked), torch.cat(biases) if biases else None, self.summed)

    def _layer(self, weights: dict[str, Tensor], index: int) -> Layer:
        at = f"model.layers.{index}."
        attention, mlp = at + "self_attn.", at + "mlp."
        has_norms = f"{attention}q_norm.weight" in weights
        return Layer(
            input_norm=self._take(weights, at + "input_layernorm.weight"),
            qkv=self._projection(weights, attention + "q_proj", attention + "k_proj", attention + "v_proj"),
            q_norm=self._take(weights, attention + "q_norm.weight") if has_norms else None,
            k_norm=self._take(weights, attention + "k_norm.weight") if has_norms else None,
            out=self._projection(weights, attention + "o_proj"),
            post_norm=self._take(weights, at + "post_attention_layernorm.weight"),
            gate_up=self._projection(weights, mlp + "gate_proj", mlp + "up_proj"),
            down=self._projection(weights, mlp + "down_proj"),
        )

    @torch.inference_mode()
    def start(self, prompts: list[list[int]], max_new: int) -> Tensor:
        """Read ``prompts``, each alone so that its numbers don't depend on its neighbours."""
        shape = self.shape
        capacity = max(map(len, prompts)) + max_new
        size = (shape.layers, len(prompts), shape.kv_heads, capacity, shape.head_dim)
        self.keys = torch.zeros(size, dtype=self.dtype, device=self.device)
        self.values = torch.zeros(size, dtype=self.dtype, device=self.device)
        self.lengths = [len(prompt) for prompt in prompts]
        self._tables(capacity)
        logits: list[Tensor] = []
        first_with: dict[tuple[int, ...], int] = {}
        for row, prompt in enumerate(prompts):
            twin = first_with.setdefault(tuple(prompt), row)
            if twin != row:
                self.keys[:, row], self.values[:, row] = self.keys[:, twin], self.values[:, twin]
                logits.append(logits[twin])
                continue
            ids = torch.tensor([prompt], device=self.device)
            logits.append(self._forward(ids, slice(row, row + 1), 0)[0])
        return torch.stack(logits)

    @torch.inference_mode()
    def step(self, tokens: list[int]) -> Tensor:
        """Add one token to each row."""
        ids = torch.tensor(tokens, device=self.device)[:, None]
        if len(set(self.lengths)) == 1:
            logits = self._forward(ids, slice(None), self.lengths[0])
        else:
            rows = [
                self._forward(ids[row : row + 1], slice(row, row + 1), length)
                for row, length in enumerate(self.lengths)
            ]
            logits = torch.cat(rows)
        self.lengths = [length + 1 for length in self.lengths]
        return logits

    def _tables(self, capacity: int) -> None:
        angles = torch.arange(capacity, device=self.device).float()[:, None] * self.inverse_frequency[None]
        angles = torch.cat([angles, angles], dim=-1)
        self.cos, self.sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def _forward(self, ids: Tensor, rows: slice, position: int) -> Tensor:
        """ids int64[B, T] at ``position`` of cache ``rows`` -> logits float32[B, V] of the last position."""
        end = position + ids.shape[1]
        cos, sin = self.cos[position:end], self.sin[position:end]
        x = self.embedding[ids]
        for index, layer in enumerate(self.layers):
            x = x + self._attend(layer, index, self._normed(x, layer.input_norm), rows, position, cos, sin)
            gate, up = layer.gate_up(self._normed(x, layer.post_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self.head(self._normed(x[:, -1], self.norm)).float()

    def _attend(
        self, layer: Layer, index: int, x: Tensor, rows: slice, position: int, cos: Tensor, sin: Tensor
    ) -> Tensor:
        shape = self.shape
        batch, length, _ = x.shape
        heads = layer.qkv(x).view(batch, length, shape.heads + 2 * shape.kv_heads, shape.head_dim).transpose(1, 2)
        q, k, v = torch.split(heads, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._normed(q, layer.q_norm), self._normed(k, layer.k_norm)
        end = position + length
        self.keys[index, rows, :, position:end] = _rotate(k, cos, sin)
        self.values[index, rows, :, position:end] = v
        mixed = F.scaled_dot_product_attention(
            _rotate(q, cos, sin),
            self.keys[index, rows, :, :end],
            self.values[index, rows, :, :end],
            is_causal=length > 1,
            enable_gqa=shape.heads != shape.kv_heads,
        )
        return layer.out(mixed.transpose(1, 2).reshape(batch, length, shape.heads * shape.head_dim))

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
