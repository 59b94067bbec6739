"""Computes the angles of a config's rotary embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

KNOWN = ("default", "linear", "llama3")


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """``rope_type``, ``rope_theta`` and what belongs to them, from a config.json of any version."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    rope["rope_theta"] = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    return rope


def is_known_rope(config: dict[str, Any]) -> bool:
    """Whether `inverse_frequencies` knows this kind of rotary embedding."""
    rope = rope_settings(config)
    partial = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    return rope["rope_type"] in KNOWN and float(partial) == 1.0


def inverse_frequencies(config: dict[str, Any], head_dim: int) -> Tensor:
    """Angle per position of each pair in a head, float32[head_dim / 2], the same as transformers' to the last bit.

    The kind "llama3" leaves fast pairs as they are, slows slow ones by ``factor``, and blends between the two
    (Llama 3.1, 2024).
    """
    import torch

    rope = rope_settings(config)
    steps = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain: Tensor = 1.0 / rope["rope_theta"] ** steps
    if rope["rope_type"] == "linear":
        return plain / float(rope["factor"])
    if rope["rope_type"] == "llama3":
        return _llama3(plain, rope)
    return plain


def _llama3(plain: Tensor, rope: dict[str, Any]) -> Tensor:
    import torch

    factor, low, high = (float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > context / low, plain / factor, plain)
    share = (context / wavelength - low) / (high - low)
    blended = (1 - share) * slowed / factor + share * slowed
    between = ~(wavelength < context / high) * ~(wavelength > context / low)
    return torch.where(between, blended, slowed)
