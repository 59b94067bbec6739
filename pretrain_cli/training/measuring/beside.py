"""Puts stand-ins for LoRA's matrices beside a model's layers, to count what they take without holding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pretrain_cli.model.adapters import adapted_layers

Adapt = Callable[[PreTrainedModel], None]
"""Changes a model in place, so that only the matrices beside its layers are trained."""


class Beside(nn.Module):
    """A frozen layer and two matrices beside it, computed and cast as PEFT does it."""

    def __init__(self, base: nn.Module, rank: int, dora: bool) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        one, other = int(base.weight.shape[0]), int(base.weight.shape[1])  # type: ignore[index]
        rows, columns = (one, other) if isinstance(base, Conv1D) else (other, one)
        self.first = nn.Linear(rows, rank, bias=False, dtype=torch.float32)
        self.second = nn.Linear(rank, columns, bias=False, dtype=torch.float32)
        self.length = nn.Parameter(torch.ones(columns)) if dora else None

    @property
    def base_weights(self) -> int:
        """Weights of the layer."""
        weight: Any = self.base.weight
        return int(weight.numel())

    @property
    def own_weights(self) -> int:
        """Weights that are trained."""
        own = self.first.weight.numel() + self.second.weight.numel()
        return own + (self.length.numel() if self.length is not None else 0)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, and the matrices' product."""
        plain: Tensor = self.base(x)
        own = self.second(self.first(x.to(torch.float32))) * 2.0
        if self.length is not None:
            own = own * self.length + plain * (self.length - 1)
        both: Tensor = (plain + own).to(plain.dtype)
        return both


def beside(rank: int, targets: Sequence[str] = (), dora: bool = False) -> Adapt:
    """What puts matrices of ``rank`` beside the layers that LoRA adapts, see `adapted_layers`."""

    def adapt(model: PreTrainedModel) -> None:
        model.requires_grad_(False)
        for name in adapted_layers(model, targets):
            parent, _, leaf = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, leaf, Beside(getattr(owner, leaf), rank, dora))

    return adapt
