"""Draws the next token from logits.

Each id has its own noise (the Gumbel-max trick), so a draw depends on the last bits of the logits only where two
tokens are nearly equal. Those bits differ between a row alone and a row in a batch, and between machines. `draw` says
where they would decide, and the caller then asks for logits that depend on neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain_cli.config.model import GenerateConfig

CLOSE = 2e-4
"""Logits this close to each other may be in another order elsewhere: fp32 sums of a model's size differ by 1e-5."""
BEYOND = 8
"""Tokens after the best ``top_k`` that are looked at too: elsewhere one of them may be among the best."""


@dataclass(frozen=True)
class DrawnToken:
    """The next id; ``sure``: rounding can't have decided it."""

    token: int
    sure: bool


class Sampler:
    """Draws one sample's tokens. Its own generator makes the draws the same alone, in a batch and streamed."""

    def __init__(self, config: GenerateConfig, prompt: list[int], seed: int) -> None:
        self.config = config
        self.greedy = config.greedy or config.temperature == 0
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = set(prompt)
        self.noise: Tensor | None = None

    def draw(self, logits: Tensor) -> DrawnToken:
        """The next id from logits float32[V] on the CPU; called again before `accept`, it draws with the same noise."""
        if self.config.repetition_penalty != 1.0:
            logits = self._penalized(logits)
        if self.greedy:
            best = logits.topk(min(2, len(logits))).values
            return DrawnToken(int(logits.argmax()), bool(best[0] - best[-1] > CLOSE) or len(best) == 1)
        if self.noise is None:
            self.noise = torch.empty(len(logits)).exponential_(generator=self.generator).log()
        return self._drawn(logits / self.config.temperature, self.noise, CLOSE / self.config.temperature)

    def accept(self, token: int) -> None:
        """``token`` is written: the next one gets new noise."""
        self.seen.add(token)
        self.noise = None

    def _penalized(self, logits: Tensor) -> Tensor:
        """CTRL's penalty (arXiv 1909.05858): seen tokens become less probable, whatever the sign of their logits."""
        seen = torch.tensor(sorted(self.seen))
        values = logits[seen]
        penalty = self.config.repetition_penalty
        return logits.scatter(0, seen, torch.where(values < 0, values * penalty, values / penalty))

    def _drawn(self, logits: Tensor, noise: Tensor, close: float) -> DrawnToken:
        """Top-k, then top-p, then min-p, as transformers orders them; then the best of logits less noise."""
        count = min(self.config.top_k or len(logits), len(logits))
        looked_at = min(count + BEYOND, len(logits))
        values, ids = logits.topk(looked_at) if looked_at < len(logits) else logits.sort(descending=True)
        scores = values - noise[ids]
        kept = self._kept(values, count, 0.0)
        winner = int(scores.masked_fill(~kept, -torch.inf).argmax())
        rivals = self._kept(values, count, close) & (scores > scores[winner] - close)
        sure = int(rivals.sum()) == 1 and bool(self._kept(values, count, -close)[winner])
        return DrawnToken(int(ids[winner]), sure)

    def _kept(self, values: Tensor, count: int, slack: float) -> Tensor:
        """Which of the descending ``values`` the cuts keep, bool[n].

        With ``slack`` above 0, also those that another rounding might keep; below 0, only those that any would keep.
        """
        config = self.config
        probabilities = (values - values[:count].logsumexp(dim=0)).exp()
        better = torch.arange(len(values))
        if slack:
            better = torch.searchsorted(-values, -(values + slack)) - int(slack < 0)  # itself isn't counted
        kept = better < count
        if config.top_p < 1:
            # A token stays while those above it don't reach top_p together: the best one always does.
            above = torch.cat([values.new_zeros(1), probabilities.cumsum(dim=0)])[better]
            kept &= above < config.top_p + slack
        if config.min_p > 0:
            kept &= probabilities >= config.min_p * probabilities[0] * (1 - slack)
        return kept
