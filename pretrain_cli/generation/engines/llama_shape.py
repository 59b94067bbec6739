"""Decides from config.json whether our own engine can run a model, and reads its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.model.files import USE_ANOTHER
from pretrain_cli.model.rope import inverse_frequencies, is_known_rope

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "relu2": lambda x: F.relu(x).square()}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class LlamaShape:
    """Layers, heads, norm, rotary embedding and limits of a model; ``inverse_frequency`` float32[head_dim / 2].

    ``biased`` names the products that have a bias; ``norms_heads`` says whether queries and keys are normed.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    inverse_frequency: Tensor
    context: int
    tied: bool
    activation: str
    biased: frozenset[str]
    norms_heads: bool


def llama_shape(config: dict[str, Any]) -> LlamaShape | None:
    """The shape of a model that the loop computes exactly, or None: transformers' own code has to run it.

    Raises:
        ModelError: a value can't be that of any model.
    """
    try:
        return _shape(config)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json describes no model: {_told(error)}.", USE_ANOTHER) from error


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else first_line(error)


def _shape(config: dict[str, Any]) -> LlamaShape | None:
    known = config.get("model_type") in FAMILIES and is_known_rope(config)
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    activation = config.get("hidden_act", "silu")
    if not known or windowed or config.get("quantization_config") or activation not in ACTIVATIONS:
        return None
    heads = _count(config, "num_attention_heads")
    head_dim = _count(config, "head_dim") if config.get("head_dim") else _count(config, "hidden_size") // heads
    kv_heads = _count(config, "num_key_value_heads") if config.get("num_key_value_heads") else heads
    if heads % kv_heads or head_dim < 2 or head_dim % 2:
        raise ValueError(f"{heads} attention heads of {head_dim}, {kv_heads} for keys and values, don't go together")
    return LlamaShape(
        layers=_count(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        eps=float(config.get("rms_norm_eps", 1e-6)),
        inverse_frequency=inverse_frequencies(config, head_dim),
        context=_count({"max_position_embeddings": 2048, **config}, "max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", False)),
        activation=activation,
        biased=_biased(config),
        norms_heads=config["model_type"] == "qwen3",
    )


def _biased(config: dict[str, Any]) -> frozenset[str]:
    """The products that transformers' code of this family gives a bias."""
    found: set[str] = set()
    if config["model_type"] == "mistral":
        return frozenset()
    if config["model_type"] == "qwen2" or config.get("attention_bias"):
        found |= {"q_proj", "k_proj", "v_proj"}
    if config["model_type"] in ("llama", "qwen3") and config.get("attention_bias"):
        found.add("o_proj")
    if config["model_type"] == "llama" and config.get("mlp_bias"):
        found |= {"gate_proj", "up_proj", "down_proj"}
    return frozenset(found)


def _count(config: dict[str, Any], key: str) -> int:
    value = config[key]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {value!r}, but has to be a whole number of at least 1")
    return value
