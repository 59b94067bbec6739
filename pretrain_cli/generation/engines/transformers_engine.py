"""Computes logits with transformers' own code, for architectures that no other engine knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pretrain_cli.model.load import load_model

DEFAULT_CONTEXT = 2048
"""Tokens for a model that names no limit."""


class TransformersEngine:
    """A `LogitsEngine`. Rows are computed one by one, so their numbers don't depend on their neighbors."""

    rounds = in_parts = False

    def __init__(self, location: str, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_model(location, device=device, dtype=dtype).eval()
        self.device = torch.device(device)
        self.threads = torch.get_num_threads()
        limit = getattr(self.model.config, "max_position_embeddings", None)
        self.context = limit if isinstance(limit, int) and limit > 1 else DEFAULT_CONTEXT
        self.vocab_size = int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def start(self, prompts: list[list[int]], max_new: int) -> Tensor:
        """Read ``prompts``, each into its own cache."""
        outputs = [
            self.model(input_ids=torch.tensor([prompt], device=self.device), use_cache=True) for prompt in prompts
        ]
        self.caches = [output.past_key_values for output in outputs]
        return torch.cat([output.logits[:, -1].float() for output in outputs])

    @torch.inference_mode()
    def step(self, rows: list[int], tokens: list[int]) -> Tensor:
        """Add one token to each of ``rows``."""
        logits = []
        for row, token in zip(rows, tokens, strict=True):
            ids = torch.tensor([[token]], device=self.device)
            output = self.model(input_ids=ids, past_key_values=self.caches[row], use_cache=True)
            self.caches[row] = output.past_key_values
            logits.append(output.logits[:, -1].float())
        return torch.cat(logits)

    @torch.inference_mode()
    def reread(self, ids: list[int]) -> Tensor:
        """Logits float32[V] after ``ids``."""
        output = self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=False)
        return torch.as_tensor(output.logits[0, -1]).float()
