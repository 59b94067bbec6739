"""A step on packed rows, without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.data.rows.batches import LENGTHS, document_starts
from pretrain_cli.model import varlen
from pretrain_cli.training.step.loss import IGNORED
from tests.support.families import SIZES


def without_mask(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *words: Any, **keywords: Any) -> Tensor:
    """Stands for torch's flash kernel: no figure of a tensor decides what is launched."""
    return q * k.mean(1, keepdim=True).sigmoid() + v.mean(1, keepdim=True) + 0.0 * starts.sum()


def model_and_batch(attention: str) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A small model, and a batch of two rows with two documents each, as packed rows are.

    Args:
        attention: by its name in transformers.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **SIZES, head_dim=8))
    model.config._attn_implementation_internal = attention
    positions = torch.cat([torch.arange(10), torch.arange(14)]).repeat(2, 1)
    ids = torch.arange(48).view(2, 24)
    labels = ids.masked_fill(positions == 0, IGNORED)
    batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "num_items_in_batch": torch.tensor(44)}
    return model, batch | ({LENGTHS: document_starts(positions)} if attention == varlen.NAME else {})
