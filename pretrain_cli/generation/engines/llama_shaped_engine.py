"""Computes logits of Llama-, Mistral- and Qwen-shaped models: transformers' arithmetic without its imports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain_cli.cores import map_in_order, worker_count
from pretrain_cli.errors import ModelError
from pretrain_cli.formatting import count_of
from pretrain_cli.generation.engines.attention import (
    Group,
    Ragged,
    attention_of_one,
    equal_groups,
    later_part,
    ragged_batch,
    rotate,
)
from pretrain_cli.generation.engines.llama_shape import ACTIVATIONS, LlamaShape
from pretrain_cli.generation.engines.protocol import MOST_ROWS
from pretrain_cli.generation.engines.row_products import Projection, RowProduct, fastest_product, sensible_threads
from pretrain_cli.memory import available_bytes
from pretrain_cli.model.files import USE_ANOTHER

WORTH_LAYING_OUT = 16
"""Tokens still to come: laying 0.54 GB out takes 0.25 s, and saves 20 ms with each."""
Apply = Callable[[Projection, Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer's weights."""

    input_norm: Tensor
    qkv: Projection
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Projection
    post_norm: Tensor
    gate_up: Projection
    down: Projection


def _check_fit(weights: dict[str, Tensor], shape: LlamaShape) -> None:
    """Raise ModelError where the weights have other layers or heads than config.json says."""
    beyond = next((name for name in weights if name.startswith(f"model.layers.{shape.layers}.")), "")
    if beyond:
        raise ModelError(f"config.json says {count_of(shape.layers, 'layer')}, but there is {beyond}.", USE_ANOTHER)
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads, "v_proj": shape.kv_heads}
    for name, tensor in weights.items():
        kind = name.split(".")[-2] if "." in name else ""
        wanted = shape.head_dim if kind in ("q_norm", "k_norm") else heads.get(kind, 0) * shape.head_dim
        if wanted and tensor.shape[0] != wanted:
            raise ModelError(
                f"config.json doesn't fit the weights: {name} has {tensor.shape[0]:,} rows instead of {wanted:,}.",
                USE_ANOTHER,
            )


class LlamaShapedEngine:
    """A `LogitsEngine`: a model's weights, and the key-value cache of the batch that is being written.

    Args:
        weights: by name.
        shape: of the model.
        device: that computes.
        dtype: that it computes in.
        rounded: on a CPU in fp32, the product with copies of the weights in fewer bits, by which all tokens but the
            first are written; the prompt is read with the weights themselves. None: no copies.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        shape: LlamaShape,
        device: str,
        dtype: torch.dtype,
        rounded: RowProduct | None = None,
    ) -> None:
        self.shape, self.device, self.dtype = shape, torch.device(device), dtype
        self.context = shape.context
        _check_fit(weights, shape)
        self.embedding = self._take(weights, "model.embed_tokens.weight")
        self.norm = self._take(weights, "model.norm.weight")
        # fp32 on a CPU takes the fastest product; elsewhere all batches have one shape, so that rounding is the same.
        self.fp32_on_cpu = self.device.type == "cpu" and dtype == torch.float32
        self.rounded = rounded
        self.rounds = self.fp32_on_cpu and rounded is None
        self.threads = sensible_threads(self.embedding) if self.fp32_on_cpu else torch.get_num_threads()
        self.row_product: RowProduct | None = None
        self.in_parts = False
        self.layers = [self._layer(weights, index) for index in range(shape.layers)]
        self.head = self._map((self._head(weights),), None)
        self.vocab_size = len(self.embedding)
        self.inverse_frequency = shape.inverse_frequency.to(self.device)
        self.cos: Tensor | None = None
        self.sin: Tensor | None = None
        self.layer_keys = self.layer_values = [torch.empty(0)] * shape.layers
        self.texts: list[list[int]] = []

    def _head(self, weights: dict[str, Tensor]) -> Tensor:
        """As transformers chooses it: a tied head that has other values than the embedding isn't tied."""
        own = weights.get("lm_head.weight")
        if self.shape.tied and (own is None or torch.equal(own, weights["model.embed_tokens.weight"])):
            return self.embedding
        return self._take(weights, "lm_head.weight")

    def _take(self, weights: dict[str, Tensor], name: str) -> Tensor:
        if name not in weights:
            raise ModelError(f"The weights lack {name}, which config.json promises.", USE_ANOTHER)
        return weights[name].to(self.device, self.dtype)

    def _projection(self, weights: dict[str, Tensor], *names: str) -> Projection:
        stacked = [self._take(weights, f"{name}.weight") for name in names]
        biased = [name for name in names if name.rpartition(".")[2] in self.shape.biased]
        biases = [self._take(weights, f"{name}.bias") for name in biased]
        return self._map(tuple(stacked), torch.cat(biases) if biases else None)

    def _map(self, weights: tuple[Tensor, ...], bias: Tensor | None) -> Projection:
        return Projection(weights, bias, 0 if self.fp32_on_cpu else MOST_ROWS)

    def _layer(self, weights: dict[str, Tensor], index: int) -> Layer:
        at = f"model.layers.{index}."
        attention, mlp = at + "self_attn.", at + "mlp."
        has_norms = self.shape.norms_heads
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
        """Read ``prompts``, each alone, so that its numbers don't depend on its neighbors."""
        shape = self.shape
        capacity = max(map(len, prompts)) + max_new
        known = self._known(prompts)
        self.in_parts = known > 0
        size = (len(prompts), shape.kv_heads, capacity, shape.head_dim)
        self.layer_keys = [self._room(size, old, known) for old in self.layer_keys]
        self.layer_values = [self._room(size, old, known) for old in self.layer_values]
        self.texts = [list(prompt) for prompt in prompts]
        self._tables(capacity)
        logits: list[Tensor] = []
        first_with: dict[tuple[int, ...], int] = {}
        for row, prompt in enumerate(prompts):
            twin = first_with.setdefault(tuple(prompt), row)
            if twin != row:
                for cache in (*self.layer_keys, *self.layer_values):
                    cache[row] = cache[twin]
                logits.append(logits[twin])
                continue
            ids = torch.tensor([prompt[known:]], device=self.device)
            logits.append(self._forward(ids, [row], [known], Projection.__call__)[0])
        return torch.stack(logits)

    def _room(self, size: tuple[int, ...], old: Tensor, known: int) -> Tensor:
        """A layer's keys or values [B, H, capacity, D], of one row the first ``known`` taken over."""
        room = torch.zeros(size, dtype=self.dtype, device=self.device)
        if known:
            room[:, :, :known] = old[:, :, :known]
        return room

    def _known(self, prompts: list[list[int]]) -> int:
        """Tokens at the beginning of a single prompt that are in the cache already, as in a conversation's next turn.

        What is read in two parts rounds differently: only where `rounds` says that no decision depends on it.
        """
        if not self.rounds or len(prompts) != 1 or len(self.texts) != 1:
            return 0
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompts[0], self.texts[0], strict=False))
        return min(sum(1 for _ in same), len(prompts[0]) - 1)

    @torch.inference_mode()
    def step(self, rows: list[int], tokens: list[int]) -> Tensor:
        """Add one token to each of ``rows``."""
        ids = torch.tensor(tokens, device=self.device)[:, None]
        apply = Projection.of_row if self._is_laid_out(rows) else Projection.__call__
        logits = self._forward(ids, rows, [len(self.texts[row]) for row in rows], apply)
        for row, token in zip(rows, tokens, strict=True):
            self.texts[row].append(token)
        return logits

    @torch.inference_mode()
    def reread(self, ids: list[int]) -> Tensor:
        """Logits float32[V] after ``ids``, read at once; the batch being written stays as it is."""
        kept = self.layer_keys, self.layer_values, self.texts, self.in_parts
        try:
            self.texts = []
            return self.start([ids], 0)[0]
        finally:
            self.layer_keys, self.layer_values, self.texts, self.in_parts = kept

    def _is_laid_out(self, rows: list[int]) -> bool:
        """Whether the next token takes the product of one row; lays the weights out for it where that pays."""
        if self.rounded is not None:
            if self.row_product is None:
                self._lay_out()
            return True
        if not self.rounds or len(rows) > 1:
            return False
        tokens_left = self.layer_keys[0].shape[2] - len(self.texts[rows[0]])
        if self.row_product is None and tokens_left >= WORTH_LAYING_OUT:
            self._lay_out()
        return self.row_product is not None

    def _lay_out(self) -> None:
        """Lay the weights out for the fastest product of one row; after a Ctrl-C, the next step tries again."""
        wide = [*(layer.gate_up for layer in self.layers), self.head]
        projections = [*wide, *(each for layer in self.layers for each in (layer.qkv, layer.out, layer.down))]
        room = 2 * sum(each.n_bytes for each in projections)
        product = self.rounded or fastest_product(wide, available_bytes() > room)
        threads = torch.get_num_threads()
        for _ in map_in_order(lambda each: each.lay_out(product, threads), projections, worker_count(self.device)):
            pass
        self.row_product = product

    def _tables(self, capacity: int) -> None:
        """Make cosines and sines [capacity, D], unless there are enough already."""
        if self.cos is not None and self.cos.shape[0] >= capacity:
            return
        angles = torch.arange(capacity, device=self.device).float()[:, None] * self.inverse_frequency[None]
        angles = torch.cat([angles, angles], dim=-1)
        self.cos, self.sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        self.sin[:, : self.shape.head_dim // 2].neg_()  # for the half that goes from the second to the first

    def _forward(self, ids: Tensor, rows: list[int], starts: list[int], apply: Apply) -> Tensor:
        """ids int64[B, T], row b of them at position ``starts[b]`` of cache row ``rows[b]`` -> logits float32[B, V].

        Either B or T is 1; ``apply``: how projections are computed.
        """
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(ids.shape[1], device=self.device)
        assert self.cos is not None and self.sin is not None
        turn = self.cos[positions][:, None], self.sin[positions][:, None]
        activate = ACTIVATIONS[self.shape.activation]
        groups: list[Group | Ragged] = [*equal_groups(rows, starts, together=self.fp32_on_cpu)]
        if self.fp32_on_cpu and len(groups) > 1:
            groups = [ragged_batch(rows, starts, everyone=len(rows) == len(self.texts))]
        x = self.embedding[ids]
        for index, layer in enumerate(self.layers):
            x = x + self._attend(layer, index, self._normed(x, layer.input_norm), groups, turn, apply)
            gate, up = apply(layer.gate_up, self._normed(x, layer.post_norm)).chunk(2, dim=-1)
            x = x + apply(layer.down, activate(gate) * up)
        return apply(self.head, self._normed(x[:, -1], self.norm)).float()

    def _attend(
        self,
        layer: Layer,
        index: int,
        x: Tensor,
        groups: list[Group | Ragged],
        turn: tuple[Tensor, Tensor],
        apply: Apply,
    ) -> Tensor:
        shape = self.shape
        batch, length, _ = x.shape
        heads = apply(layer.qkv, x).view(batch, length, -1, shape.head_dim).transpose(1, 2)
        turned, v = heads.split_with_sizes([shape.heads + shape.kv_heads, shape.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = torch.split(turned, [shape.heads, shape.kv_heads], dim=1)
            turned = torch.cat([self._normed(q, layer.q_norm), self._normed(k, layer.k_norm)], dim=1)
        q, k = rotate(turned, *turn).split_with_sizes([shape.heads, shape.kv_heads], dim=1)
        mixed = [
            self._mix_ragged(index, q, k, v, group)
            if isinstance(group, Ragged)
            else self._mix(index, q[group.here], k[group.here], v[group.here], group)
            for group in groups
        ]
        whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        return apply(layer.out, whole.transpose(1, 2).reshape(batch, length, shape.heads * shape.head_dim))

    def _mix(self, index: int, q: Tensor, k: Tensor, v: Tensor, group: Group) -> Tensor:
        """Put k and v [b, H, T, D] into the cache and attend to all of its rows up to there."""
        length, end = q.shape[2], group.start + q.shape[2]
        keys, values = self.layer_keys[index], self.layer_values[index]
        if len(k) < len(keys):
            keys, values = keys[group.rows], values[group.rows]
        keys.narrow(2, group.start, length).copy_(k)
        values.narrow(2, group.start, length).copy_(v)
        if length == 1 and len(q) == 1 and self.fp32_on_cpu:
            return attention_of_one(q, keys.narrow(2, 0, end), values.narrow(2, 0, end))
        return F.scaled_dot_product_attention(
            q,
            keys.narrow(2, 0, end),
            values.narrow(2, 0, end),
            attn_mask=later_part(length, end, q.device) if length > 1 and group.start else None,
            is_causal=length > 1 and not group.start,
            enable_gqa=self.shape.heads != self.shape.kv_heads,
        )

    def _mix_ragged(self, index: int, q: Tensor, k: Tensor, v: Tensor, ragged: Ragged) -> Tensor:
        """The same for one token of each of several rows at different positions, in one call."""
        seen = []
        for cache, new in ((self.layer_keys[index], k), (self.layer_values[index], v)):
            cache[ragged.rows, :, ragged.starts] = new[:, :, 0]
            part = cache.narrow(2, 0, ragged.end)
            seen.append(part if ragged.everyone else part[ragged.rows])
        return F.scaled_dot_product_attention(
            q, seen[0], seen[1], attn_mask=ragged.mask, enable_gqa=self.shape.heads != self.shape.kv_heads
        )

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.fp32_on_cpu and x.numel() == x.shape[-1]:  # torch's own takes 30 µs for one row
            row = x.reshape(-1)
            mean_square = float(row.dot(row)) / len(row)
            return x * (weight / math.sqrt(mean_square + self.shape.eps))
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)
