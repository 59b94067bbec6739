"""Decides from config.json whether our own engine can run a model, and reads its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pretrain_cli.model.rope import inverse_frequencies, is_known_rope

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "relu2": lambda x: F.relu(x).square()}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class LlamaShape:
    """Layers, heads, norm, rotary embedding and limits of a model; ``inverse_frequency`` float32[head_dim / 2]."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    inverse_frequency: Tensor
    context: int
    tied: bool
    activation: str


def llama_shape(config: dict[str, Any]) -> LlamaShape | None:
    """The shape of a model that the loop computes exactly, or None: transformers' own code has to run it."""
    known = config.get("model_type") in FAMILIES and is_known_rope(config)
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    activation = config.get("hidden_act", "silu")
    if not known or windowed or config.get("quantization_config") or activation not in ACTIVATIONS:
        return None
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    return LlamaShape(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        eps=float(config.get("rms_norm_eps", 1e-6)),
        inverse_frequency=inverse_frequencies(config, head_dim),
        context=int(config.get("max_position_embeddings", 2048)),
        tied=bool(config.get("tie_word_embeddings", False)),
        activation=activation,
    )
