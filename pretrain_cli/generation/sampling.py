"""Which token comes next, given the logits?"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain_cli.config.model import GenerateConfig


class Sampler:
    """Draws one sample's tokens. Its own generator makes the draws the same alone, in a batch and streamed."""

    def __init__(self, config: GenerateConfig, prompt: list[int], seed: int) -> None:
        self.config = config
        self.greedy = config.greedy or config.temperature == 0
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = set(prompt)

    def choose(self, logits: Tensor) -> int:
        """The next id from logits float32[V] on the CPU."""
        config = self.config
        if config.repetition_penalty != 1.0:
            logits = self._penalised(logits)
        token = int(logits.argmax()) if self.greedy else self._draw(logits / config.temperature)
        self.seen.add(token)
        return token

    def _penalised(self, logits: Tensor) -> Tensor:
        """CTRL's penalty (arXiv 1909.05858): seen tokens move towards less probable, whatever their sign."""
        seen = torch.tensor(sorted(self.seen))
        values = logits[seen]
        penalty = self.config.repetition_penalty
        return logits.scatter(0, seen, torch.where(values < 0, values * penalty, values / penalty))

    def _draw(self, logits: Tensor) -> int:
        """Top-k, then top-p, then min-p, as transformers orders them; then one draw."""
        config = self.config
        count = min(config.top_k or len(logits), len(logits))
        values, ids = logits.topk(count) if count < len(logits) else logits.sort(descending=True)
        probabilities = values.softmax(dim=0)
        if config.top_p < 1:
            # A token stays while those above it don't reach top_p together: the best one always does.
            above = probabilities.cumsum(dim=0) - probabilities
            probabilities = probabilities.where(above < config.top_p, 0)
        if config.min_p > 0:
            probabilities = probabilities.where(probabilities >= config.min_p * probabilities[0], 0)
        return int(ids[torch.multinomial(probabilities, 1, generator=self.generator)])
