"""Runs a model's forward pass in two halves, so that logits are computed only where they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pretrain_cli.model.probes import FAILURES


@dataclass(frozen=True)
class Forward:
    """The two halves: ids int64[B, T] → hidden[B, T, H], and rows of that [n, H] → logits[n, V]."""

    body: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]


def choose_forward(model: PreTrainedModel, probe: Tensor) -> Forward:
    """The cheapest exact way to logits: body and head apart, so that the head runs on wanted positions only.

    Some architectures scale or cap logits after the head: a comparison on ``probe`` int64[1, T] shows it, and those
    keep their own forward pass.
    """

    def whole(ids: Tensor) -> Tensor:
        return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    body, head = model.base_model, model.get_output_embeddings()

    def hidden(ids: Tensor) -> Tensor:
        # use_cache=False: with a cache, transformers would build a mask as for generation.
        return body(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    try:
        with torch.inference_mode():
            same = body is not model and torch.allclose(head(hidden(probe)), whole(probe), rtol=1e-3, atol=1e-3)
    except FAILURES:
        same = False
    return Forward(hidden, head) if same else Forward(whole, lambda logits: logits)
