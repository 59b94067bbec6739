"""Writes with an opened model, always the most probable token, up to one that ends the document."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor


def greedy_ids(
    read: Callable[[Tensor, Any], tuple[Tensor, Any]],
    ids: list[int],
    count: int,
    end_ids: Collection[int | None],
    device: torch.device,
) -> list[int]:
    """Up to ``count`` ids that follow ``ids``, without the one that ends the document.

    Args:
        read: (ids int64[1, n], key-value cache or None) → (logits [V] of the last position, cache).
        ids: at least one.
        count: at most.
        end_ids: end a document.
        device: of the model.
    """
    written: list[int] = []
    window, cache = ids, None
    for _ in range(count):
        logits, cache = read(torch.tensor([window], device=device), cache)
        token = int(logits.argmax())
        if token in end_ids:
            break
        written.append(token)
        window = [token]
    return written


def end_ids(eos_id: int | None, *named: object) -> frozenset[int]:
    """The ids that end a document.

    Args:
        eos_id: of the tokenizer.
        named: what the model's config and its generation config call ``eos_token_id``: an id, several, or none. What
            can't be an id is left out.
    """
    lists = [value if isinstance(value, list) else [value] for value in (eos_id, *named)]
    return frozenset(found for ids in lists for found in ids if type(found) is int and 0 <= found < 1 << 31)
