"""Moves the rows of new tokens at a rate of their own, and at first nothing but them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from pretrain_cli.errors import ConfigError

ADAPTED = "trainable_tokens_delta"
"""In the names of the tensors in which PEFT keeps the rows that are trained beside LoRA's matrices."""


class NewRows:
    """Looks at each step of an optimizer, before and after.

    Args:
        model: whose rows they are, in embedding and head.
        first: id of the first new token.
        rate: learning rate of the rows, times that of the weights that they are in.
        alone: whether nothing else moves in the next step.
    """

    def __init__(self, model: nn.Module, first: int, rate: float, alone: Callable[[], bool]) -> None:
        adapted = [parameter for name, parameter in model.named_parameters() if ADAPTED in name]
        self._rate, self._alone = rate, alone
        found: list[tuple[Tensor, int]] = [(table, 0) for table in adapted]
        found = found or [(table, first) for table in _tables(model)]
        self._tables = {id(table): (table, start) for table, start in found}
        self._before: list[Tensor] = []
        if any(isinstance(table, DTensor) for table, _ in self._tables.values()):
            raise ConfigError(
                "train.new_token_rate and train.new_tokens_first don't work with a model that is split over devices.",
                "Leave out --shard-model, or both keys.",
            )

    def attach(self, optimizer: Optimizer) -> None:
        """Look at the steps of ``optimizer``."""
        optimizer.register_step_pre_hook(self._look_before)
        optimizer.register_step_post_hook(self._look_after)

    @torch.no_grad()
    def _look_before(self, optimizer: Optimizer, *_: Any) -> None:
        if self._alone():
            for parameter in (each for group in optimizer.param_groups for each in group["params"]):
                if id(parameter) not in self._tables:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad[: self._tables[id(parameter)][1]] = 0
        if self._rate != 1:
            self._before = [table[first:].clone() for table, first in self._tables.values()]

    @torch.no_grad()
    def _look_after(self, *_: Any) -> None:
        for before, (table, first) in zip(self._before, self._tables.values(), strict=False):
            table[first:] = torch.lerp(before, table[first:], self._rate)


def _tables(model: Any) -> list[Tensor]:
    """Embedding and head, the same one where they are tied."""
    return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
