"""Attends within each document of packed rows with torch's own flash kernel: no mask is made, and nothing waits."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pretrain_cli.errors import first_line
from pretrain_cli.model.limits import size_of, text_config

NAME = "ptk_varlen"
"""In transformers' list of attentions. It has no entry among its masks, so that none is made."""
CAUSAL = (-1, 0)
AGREES = 0.02
"""Share of the largest value within which two kernels in half precision agree."""
PROBE_LENGTHS = (5, 1, 10)


def register() -> None:
    """Make the attention known to transformers, by its documented way."""
    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within documents: [B, heads, L, D] → [B, L, heads, D]; keys may have fewer heads.

    ``cu_seq_lens_q``, int32 [n + 1], says where each document of all rows begins, and the end; without it each row is
    one document.

    Raises:
        NotImplementedError: several tokens after others that are remembered, which needs a mask.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        if 1 < query.shape[2] != key.shape[2]:
            raise NotImplementedError("varlen attention reads a text whole, or token by token")
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
        return found
    rows, length = query.shape[0], query.shape[2]
    kind = _half(query)

    def flat(heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).reshape(rows * length, heads.shape[1], heads.shape[3]).to(kind)

    out = varlen_attn(
        flat(query),
        flat(key),
        flat(value),
        cu_seq_lens_q,
        cu_seq_lens_k,
        max_length_q,
        max_length_k or max_length_q,
        scale=scaling,
        window_size=CAUSAL,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out.view(rows, length, *out.shape[1:]), None


def _half(query: Tensor) -> torch.dtype:
    """What the kernel computes in: a norm of queries and keys gives fp32 under autocast."""
    kind = query.device.type
    if query.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return query.dtype


def is_plain(config: PreTrainedConfig) -> bool:
    """Whether a model's attention is what this kernel does: over the whole document, without dropout, caps or sinks."""
    found = text_config(config)
    kinds = set(getattr(found, "layer_types", None) or ())
    windowed = bool(getattr(found, "sliding_window", None)) and getattr(found, "use_sliding_window", True)
    return (
        kinds <= {"full_attention"}
        and (not windowed or kinds == {"full_attention"})
        and not getattr(found, "attention_dropout", 0.0)
        and not getattr(found, "attn_logit_softcapping", None)
        and found.model_type not in ("gpt_oss",)
    )


def fault(device: str, config: PreTrainedConfig, dtype: torch.dtype) -> str:
    """Why the kernel can't be used on ``device`` for heads like those of ``config``; empty where it agrees with sdpa.

    Three documents are attended to, forward and backward.
    """
    heads = size_of(config, "num_attention_heads", 1)
    shared = size_of(config, "num_key_value_heads", heads)
    width = size_of(config, "head_dim") or size_of(config, "hidden_size", heads) // heads
    total = sum(PROBE_LENGTHS)
    generator = torch.Generator().manual_seed(0)

    def random(number: int) -> Tensor:
        values = torch.randn(1, number, total, width, generator=generator)
        return values.to(device, dtype).requires_grad_()

    query, key, value = inputs = random(heads), random(shared), random(shared)
    starts = torch.tensor([0, *itertools.accumulate(PROBE_LENGTHS)], dtype=torch.int32).to(device)
    try:
        found, _ = attend(
            nn.Module(), query, key, value, None, cu_seq_lens_q=starts, cu_seq_lens_k=starts, max_length_q=total
        )
        gradients = torch.autograd.grad(found.float().square().sum(), inputs)
        parts = [torch.split(each, [*PROBE_LENGTHS], dim=2) for each in inputs]
        alone = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            for q, k, v in zip(*parts, strict=True)
        ]
        wanted = torch.cat(alone, dim=2).transpose(1, 2)
        expected = torch.autograd.grad(wanted.float().square().sum(), inputs)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        return first_line(error)[:120]
    pairs = [(found, wanted), *zip(gradients, expected, strict=True)]
    close = all(bool((one - other).abs().max() <= AGREES * other.abs().max()) for one, other in pairs)
    return "" if close else "its results differ from torch's other kernels"
