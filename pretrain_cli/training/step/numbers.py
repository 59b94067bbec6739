"""Reads a step's figures from the GPU at once."""

from __future__ import annotations

import torch


def numbers(*values: torch.Tensor | float) -> list[float]:
    """The values of scalars; those on one device are waited for once."""
    held = [value for value in values if isinstance(value, torch.Tensor)]
    if not held or any(value.device != held[0].device for value in held):
        return [float(value) for value in values]
    found = iter(torch.stack([value.detach().float() for value in held]).tolist())
    return [next(found) if isinstance(value, torch.Tensor) else value for value in values]
