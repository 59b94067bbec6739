"""Continues a text token by token with any model of transformers, whatever it calls what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pretrain_cli.model.probes import memory_of


@dataclass(frozen=True)
class TextReader:
    """Reads the next ids of a text.

    Attributes:
        forward: of the whole model.
        memory: what outputs and arguments call the memory of earlier ids; empty where all are read again each time.
    """

    forward: Callable[..., Any]
    memory: str

    def __call__(self, ids: Tensor, remembered: Any = None) -> tuple[Tensor, Any]:
        """Read ``ids`` int64[1, n] after what is ``remembered``, None at first.

        Returns:
            Logits [V] after the last id, and what to remember.
        """
        if not self.memory:
            whole = ids if remembered is None else torch.cat([remembered, ids], dim=1)
            return self.forward(input_ids=whole, use_cache=False).logits[0, -1], whole
        extra = {} if remembered is None else {self.memory: remembered}
        output = self.forward(input_ids=ids, use_cache=True, **extra)
        return output.logits[0, -1], getattr(output, self.memory)


def reader_of(model: PreTrainedModel) -> TextReader:
    """The fastest way to continue text with ``model`` that gives the logits of reading it at once."""
    return TextReader(model, memory_of(model))


def reader_in_training(model: PreTrainedModel) -> TextReader:
    """The same for a model whose ``forward`` gives the loss while it is trained."""

    def forward(**inputs: Any) -> Any:
        return type(model).forward(model, **inputs)

    return TextReader(forward, memory_of(model, forward))
