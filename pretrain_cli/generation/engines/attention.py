"""Attends from the rows of a batch to a key-value cache, in as few calls as their positions allow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Neighbors in a batch that are at the same position: places ``here`` of the batch, ``rows`` of the cache."""

    here: slice
    rows: slice
    start: int


def equal_groups(rows: list[int], starts: list[int], together: bool) -> list[Group]:
    """The batch as groups that attend in one call; each row by itself where not ``together``."""
    groups: list[Group] = []
    for here, (row, start) in enumerate(zip(rows, starts, strict=True)):
        last = groups[-1] if groups else None
        if together and last is not None and last.start == start and last.rows.stop == row:
            groups[-1] = Group(slice(last.here.start, here + 1), slice(last.rows.start, row + 1), start)
        else:
            groups.append(Group(slice(here, here + 1), slice(row, row + 1), start))
    return groups


@dataclass(frozen=True)
class Ragged:
    """A batch whose rows are at different positions: the cache is read up to the last of them, behind a mask."""

    rows: Tensor
    starts: Tensor
    end: int
    mask: Tensor
    everyone: bool


def ragged_batch(rows: list[int], starts: list[int], everyone: bool) -> Ragged:
    """The batch in one call; ``everyone``: it has all rows of the cache."""
    end, places = max(starts) + 1, torch.tensor(starts)
    mask = torch.arange(end)[None] <= places[:, None]
    return Ragged(torch.tensor(rows), places, end, mask[:, None, None], everyone)


def attention_of_one(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """q [1, H, 1, D] and keys, values [1, G, T, D] -> [1, H, 1, D], in half the time of torch's kernel."""
    _, heads, _, width = q.shape
    rows = q.reshape(keys.shape[1], -1, width)
    weights = torch.bmm(rows, keys[0].mT).mul_(width**-0.5).softmax(dim=-1)
    return torch.bmm(weights, values[0]).view(1, heads, 1, width)


def later_part(length: int, end: int, device: torch.device) -> Tensor:
    """Which of ``end`` positions each of the last ``length`` sees, bool[length, end]."""
    return torch.ones(length, end, dtype=torch.bool, device=device).tril(end - length)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., D] turned by its position (arXiv 2104.09864); the first half of ``sin`` is negative."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin
