"""Gives the teachers' mean distribution of the next token, which a student learns from beside the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from pretrain_cli.formatting import percent


@dataclass(frozen=True)
class Teacher:
    """A finished model that is only asked.

    Attributes:
        name: what messages call it.
        model: in evaluation mode, without gradients, on the student's device.
        plain: logits are the last hidden state times the head's matrix: they can be made in chunks.
        apart: it keeps documents apart where ``position_ids`` restart.
        identity: hash of its weights; a resume needs the same ones.
    """

    name: str
    model: PreTrainedModel
    plain: bool
    apart: bool
    identity: str


@dataclass(frozen=True)
class Teachers:
    """Several models whose mean distribution is learned (Hinton et al. 2015, arXiv 1503.02531).

    Attributes:
        models: at least one.
        weight: share of the loss that follows them; the rest follows the text.
    """

    models: tuple[Teacher, ...]
    weight: float

    @property
    def told(self) -> str:
        """ "a, b: 70% of the loss follows their mean distribution"."""
        names, several = ", ".join(teacher.name for teacher in self.models), len(self.models) > 1
        share = percent(self.weight)
        return f"{names}: {share} of the loss follows {'their mean' if several else 'its'} distribution"

    def look(self, input_ids: Tensor, position_ids: Tensor | None) -> Lesson:
        """Let all read a batch. int64 [B, L], and positions that restart with each document."""
        with torch.no_grad():
            return Lesson(tuple(_reading(teacher, input_ids, position_ids) for teacher in self.models), self.weight)


@dataclass(frozen=True)
class Lesson:
    """What the teachers say about one batch; logits are made for a chunk of places at a time."""

    _logits: tuple[Callable[[Tensor], Tensor], ...]
    weight: float

    def probabilities(self, places: Tensor, entries: int) -> Tensor:
        """The mean distribution: float32 [n, entries].

        Args:
            places: int64 [n], positions in the flattened batch [B·L].
            entries: of the student's vocabulary. What a teacher's has in addition is padding, and left out.
        """
        total: Tensor | None = None
        for logits_of in self._logits:
            logits = logits_of(places).float()[:, :entries]
            own = torch.softmax(logits, -1)
            own = own if own.shape[1] == entries else F.pad(own, (0, entries - own.shape[1]))
            total = own if total is None else total.add_(own)
        assert total is not None
        return total.div_(len(self._logits))


def _reading(teacher: Teacher, input_ids: Tensor, position_ids: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Gives the logits of places; whole ones are held where the head isn't one plain matrix."""
    model = teacher.model
    asked = {"input_ids": input_ids, "use_cache": False}
    if teacher.apart:
        asked["position_ids"] = position_ids
    if not teacher.plain:
        logits = model(**asked).logits
        flat = logits.reshape(-1, logits.shape[-1])
        return lambda places: flat.index_select(0, places)
    hidden = model.base_model(**asked).last_hidden_state
    rows, weight = hidden.reshape(-1, hidden.shape[-1]), model.get_output_embeddings().weight
    return lambda places: F.linear(rows.index_select(0, places), weight)
