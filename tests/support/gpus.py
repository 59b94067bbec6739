"""GPUs that aren't there: what torch.cuda says of them, and what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch


@dataclass
class Gpus:
    """``count`` GPUs of one kind.

    Attributes:
        capability: CUDA's; (7, 5) is a T4, (9, 0) an H100.
        free: bytes of memory.
        current: the index that was set last.
        name: what the driver calls it.
    """

    count: int
    capability: tuple[int, int] = (9, 0)
    free: int = 80 * 10**9
    current: int = 0
    name: str = "a GPU that isn't there"
    asked: list[str] = field(default_factory=list)

    def show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let torch.cuda answer for them."""
        answers: dict[str, Any] = {
            "is_available": lambda: self.count > 0,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "set_device": self._set,
            "get_device_name": lambda device=None: self.name,
            "get_device_capability": lambda device=None: self.capability,
            "is_bf16_supported": lambda including_emulation=True: including_emulation or self.capability >= (8, 0),
            "mem_get_info": lambda device=None: (self.free, self.free),
            "synchronize": lambda device=None: self.asked.append("synchronize"),
            "max_memory_allocated": lambda device=None: 0,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    def _set(self, device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        if index is not None:
            if not 0 <= index < self.count:
                raise RuntimeError("CUDA error: invalid device ordinal")
            self.current = index


def on_fake_gpu(model: torch.nn.Module) -> torch.nn.Module:
    """``model``, made under FakeTensorMode, with its weights and buffers on a GPU.

    `Module.to` starts CUDA, which a torch built without it can't; what is made there is only a size and a place.
    """
    moved: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                place = moved.setdefault(id(weight), torch.nn.Parameter(torch.empty_like(weight, device="cuda:0")))
                module._parameters[name] = place
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cuda:0")
    return model
