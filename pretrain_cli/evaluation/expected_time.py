"""Says before the start how long scoring will take, and how to get a first verdict within a minute."""

from __future__ import annotations

import time

import torch

from pretrain_cli.cores import map_in_order, worker_count
from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.evaluation.scoring import window_step
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.evaluation.windows import window_lengths
from pretrain_cli.formatting import count_of, duration, exact
from pretrain_cli.progress import Progress

FIRST_VERDICT_S = 60
PROBED_FROM_TOKENS = 4096
"""Fewer tokens than this take less time than measuring the speed."""
SPEED_TOKENS = 512
OPENING_CHARACTERS, SEEN_BYTES = 20_000, 200_000
"""How much of a document, and of a text, is encoded to count its tokens."""


def announce(model: OpenModel, texts: list[Text], others: list[int], stride: int | None, progress: Progress) -> None:
    """Say how long scoring ``texts`` will take.

    Args:
        model: the first of those to score.
        texts: for each of them.
        others: weights of the others, 0 where unknown: each takes time in proportion.
        stride: new tokens in a window; None: half the context.
        progress: told.
    """
    tokens = sum(tokens_to_process(model, text, stride) for text in texts)
    if tokens < PROBED_FROM_TOKENS:
        return
    times = 1 + sum(size or model.parameters for size in others) / model.parameters
    seconds = times * tokens / tokens_per_second(model)
    n_bytes = sum(text.n_bytes for text in texts)
    models = count_of(1 + len(others), "model")
    line = f"scoring {exact(n_bytes)} bytes with {models} takes about {duration(seconds)}"
    if seconds > FIRST_VERDICT_S:
        share = round(n_bytes / len(texts) * 0.75 * FIRST_VERDICT_S / seconds, -3)
        line += f"; for a first verdict within a minute: --sample {max(1000, int(share))}"
    progress.note(line)


def tokens_to_process(model: OpenModel, text: Text, stride: int | None) -> int:
    """About how many tokens will go through the model, from the beginnings of the text's first documents."""
    seen_bytes = seen_tokens = 0
    step = window_step(model, stride)
    for document in text.read():
        piece, length = document.opening(OPENING_CHARACTERS)
        tokens = len(model.tokenizer.encode(piece, add_special_tokens=False).ids)
        share = length / max(1, len(piece))
        seen_tokens += window_lengths(round(tokens * share) + 1, model.context, step)
        seen_bytes += round(len(piece.encode("utf-8")) * share)
        if seen_bytes > SEEN_BYTES:
            break
    return round(seen_tokens * text.n_bytes / max(1, seen_bytes))


def tokens_per_second(model: OpenModel) -> float:
    """Speed of the forward pass on windows of SPEED_TOKENS, as many at once as in scoring; the first ones warm up."""
    workers = worker_count(model.device)
    ids = torch.full((1, min(model.context, SPEED_TOKENS)), model.first_id, device=model.device)

    @torch.inference_mode()
    def run(window: torch.Tensor) -> float:
        return float(model.model(input_ids=window, use_cache=False).logits[0, -1].max().item())

    list(map_in_order(run, [ids] * workers, workers))
    started = time.perf_counter()
    list(map_in_order(run, [ids] * workers, workers))
    return workers * ids.numel() / max(time.perf_counter() - started, 1e-9)
