"""Computes logits with transformers' own code, for architectures that no other engine knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pretrain_cli.model.continuing import reader_of
from pretrain_cli.model.limits import DEFAULT_CONTEXT, position_limit
from pretrain_cli.model.load import load_model


class TransformersEngine:
    """A `LogitsEngine`. Rows are computed one by one, so their numbers don't depend on their neighbors."""

    rounds = in_parts = False

    def __init__(self, location: str, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_model(location, device=device, dtype=dtype).eval()
        self.device = torch.device(device)
        self.threads = torch.get_num_threads()
        self.read = reader_of(self.model)
        self.context = position_limit(self.model) or DEFAULT_CONTEXT
        self.vocab_size = int(self.model.get_input_embeddings().weight.shape[0])

    @torch.inference_mode()
    def start(self, prompts: list[list[int]], max_new: int) -> Tensor:
        """Read ``prompts``, each into its own memory."""
        found = [self.read(torch.tensor([prompt], device=self.device)) for prompt in prompts]
        self.memories = [memory for _, memory in found]
        return torch.stack([logits.float() for logits, _ in found])

    @torch.inference_mode()
    def step(self, rows: list[int], tokens: list[int]) -> Tensor:
        """Add one token to each of ``rows``."""
        logits = []
        for row, token in zip(rows, tokens, strict=True):
            ids = torch.tensor([[token]], device=self.device)
            row_logits, self.memories[row] = self.read(ids, self.memories[row])
            logits.append(row_logits.float())
        return torch.stack(logits)

    @torch.inference_mode()
    def reread(self, ids: list[int]) -> Tensor:
        """Logits float32[V] after ``ids``."""
        output = self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=False)
        return torch.as_tensor(output.logits[0, -1]).float()
