"""How probable is each byte of a text under a model? Every token scored once, documents apart, memory flat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.evaluation.opening import Forward, OpenModel, choose_forward
from pretrain_cli.evaluation.tally import BLOCK_BYTES, DocumentTally, Tally
from pretrain_cli.evaluation.texts import Document, Text
from pretrain_cli.evaluation.windows import Window, cut_windows

HEAD_ROWS = 512
"""Scored positions that go through the head at once: 100 MB of fp32 logits for a vocabulary of 49 152."""

BUFFERED_BATCHES = 16
"""Windows gathered before they are sorted by length, in batches' worth of tokens."""

SPEED_TOKENS = 512


@dataclass(frozen=True)
class Encoded:
    """A document as ids int64[n + 1], the first a BOS, and the block that each id's bytes lie in int64[n + 1]."""

    tally: DocumentTally
    ids: NDArray[np.int64]
    blocks: NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    document: Encoded
    window: Window


def score_text(
    model: OpenModel,
    text: Text,
    *,
    stride: int | None,
    batch_tokens: int,
    on_bytes: Callable[[int, float], None] = lambda n_bytes, tokens_per_second: None,
) -> Tally:
    """Score every byte of ``text`` exactly once.

    A document is its ids behind one BOS (EOS where there is none), cut into windows of the model's context that
    move on by ``stride`` (None: half the context).

    Args:
        model: the model, its tokenizer and its context.
        text: the documents.
        stride: new tokens in each window.
        batch_tokens: tokens, padding included, in one forward pass.
        on_bytes: told the bytes done so far and the speed in tokens per second, after each batch.

    Raises:
        DataError: no document has a token.
        ModelError: the model's probabilities aren't finite.
    """
    tally = Tally(model.vocab_size)
    jobs = _jobs(model, text, tally, stride)
    forward: Forward | None = None
    done_tokens, done_share = 0, 0.0
    started = time.perf_counter()
    for batch in _batches(jobs, batch_tokens):
        if forward is None:
            forward = choose_forward(model.model, _probe(batch[0], model))
            started = time.perf_counter()
        _score_batch(model, forward, batch, tally)
        done_tokens += sum(job.window.length for job in batch)
        done_share += sum(job.window.scored / (len(job.document.ids) - 1) * _bytes(job.document) for job in batch)
        on_bytes(min(round(done_share), text.n_bytes), done_tokens / max(time.perf_counter() - started, 1e-9))
    if not tally.token_counts.sum():
        raise DataError(f"The text '{text.name}' is too short to score.", "Give a text of at least two tokens.")
    return tally


def encode(model: OpenModel, document: Document, tally: Tally) -> Encoded:
    """The document's ids behind a BOS, and which block of its bytes each id belongs to."""
    opened = tally.open_document(document.name, document.source, document.text)
    encoding = model.tokenizer.encode(document.text, add_special_tokens=False)
    ids = np.asarray([model.first_id, *encoding.ids], dtype=np.int64)
    starts = np.asarray([0, *(start for start, _ in encoding.offsets)], dtype=np.int64)
    blocks = np.minimum(_byte_offsets(document.text)[starts] // BLOCK_BYTES, len(opened.blocks) - 1)
    decoded = model.tokenizer.decode(encoding.ids, skip_special_tokens=False)
    # SentencePiece-style tokenizers take one leading space away when they decode: that is no loss.
    missing = int(opened.blocks[:, 4].sum()) - len(decoded.encode("utf-8", "replace"))
    tally.unencoded_bytes += missing if missing > 1 else 0
    return Encoded(opened, ids, blocks)


def tokens_to_process(model: OpenModel, text: Text, stride: int | None) -> int:
    """About how many tokens will go through the model, from the text's first documents."""
    seen_bytes = seen_tokens = 0
    step = stride or max(1, model.context // 2)
    for document in text.read():
        piece = document.text[:20_000]
        tokens = len(model.tokenizer.encode(piece, add_special_tokens=False).ids) + 1
        share = len(document.text) / max(1, len(piece))
        whole = round(tokens * share)
        seen_tokens += sum(window.length for window in cut_windows(whole, model.context, min(step, model.context - 1)))
        seen_bytes += len(document.text.encode("utf-8"))
        if seen_bytes > 200_000:
            break
    return round(seen_tokens * text.n_bytes / max(1, seen_bytes))


@torch.inference_mode()
def tokens_per_second(model: OpenModel) -> float:
    """Speed of the forward pass on a window of SPEED_TOKENS, the second of two: the first warms up."""
    ids = torch.full((1, min(model.context, SPEED_TOKENS)), model.first_id, device=model.device)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        model.model(input_ids=ids, use_cache=False).logits[0, -1].max().item()
        seconds = time.perf_counter() - started
    return ids.numel() / max(seconds, 1e-9)


def _jobs(model: OpenModel, text: Text, tally: Tally, stride: int | None) -> Iterator[Job]:
    step = min(stride or max(1, model.context // 2), model.context - 1)
    for document in text.read():
        encoded = encode(model, document, tally)
        for window in cut_windows(len(encoded.ids), model.context, step):
            yield Job(encoded, window)


def _batches(jobs: Iterator[Job], batch_tokens: int) -> Iterator[list[Job]]:
    """Windows of like length together: padded tokens cost as much as real ones."""
    waiting: list[Job] = []
    waiting_tokens = 0
    for job in jobs:
        waiting.append(job)
        waiting_tokens += job.window.length
        if waiting_tokens >= BUFFERED_BATCHES * batch_tokens:
            yield from _cut_batches(waiting, batch_tokens)
            waiting, waiting_tokens = [], 0
    yield from _cut_batches(waiting, batch_tokens)


def _cut_batches(jobs: list[Job], batch_tokens: int) -> Iterator[list[Job]]:
    batch: list[Job] = []
    for job in sorted(jobs, key=lambda job: -job.window.length):
        if batch and (len(batch) + 1) * batch[0].window.length > batch_tokens:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


@torch.inference_mode()
def _score_batch(model: OpenModel, forward: Forward, batch: list[Job], tally: Tally) -> None:
    longest = batch[0].window.length - 1
    ids = np.full((len(batch), longest), model.first_id, dtype=np.int64)
    wanted = np.zeros((len(batch), longest), dtype=bool)
    for row, job in enumerate(batch):
        window = job.window
        # The last token is only a target; padding stands to the right, where causal attention never looks.
        ids[row, : window.length - 1] = job.document.ids[window.start : window.end - 1]
        wanted[row, window.scored_from - 1 - window.start : window.length - 1] = True
    targets = np.concatenate([job.document.ids[job.window.scored_from : job.window.end] for job in batch])
    nats, rank = _losses(model, forward, torch.from_numpy(ids), torch.from_numpy(wanted), torch.from_numpy(targets))
    if not np.isfinite(nats).all():
        raise ModelError(
            f"The model '{model.name}' gives probabilities that aren't finite.",
            "Its weights are damaged or its training diverged: use an earlier checkpoint.",
        )
    at = 0
    for job in batch:
        window, document = job.window, job.document
        here = slice(at, at + window.scored)
        positions = np.arange(window.scored_from, window.end)
        tally.add(
            document.tally, document.blocks[positions], document.ids[positions], positions - window.start,
            nats[here], rank[here],
        )  # fmt: skip
        at += window.scored


def _losses(
    model: OpenModel, forward: Forward, ids: torch.Tensor, wanted: torch.Tensor, targets: torch.Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Loss in nats and rank of each target, [n_wanted]; logits live for HEAD_ROWS positions at a time."""
    hidden = forward.body(ids.to(model.device))[wanted.to(model.device)]
    nats, ranks = [], []
    targets = targets.to(model.device)
    for start in range(0, len(targets), HEAD_ROWS):
        rows, target = hidden[start : start + HEAD_ROWS], targets[start : start + HEAD_ROWS]
        logits = forward.head(rows).float()
        chosen = logits.gather(1, target[:, None])
        nats.append((logits.logsumexp(dim=1) - chosen[:, 0]).double().cpu())
        ranks.append((logits > chosen).sum(dim=1).cpu())
    return torch.cat(nats).numpy(), torch.cat(ranks).numpy()


def _probe(job: Job, model: OpenModel) -> torch.Tensor:
    return torch.from_numpy(job.document.ids[:16])[None].to(model.device)


def _bytes(document: Encoded) -> float:
    return float(document.tally.blocks[:, 4].sum())


def _byte_offsets(text: str) -> NDArray[np.int64]:
    """UTF-8 bytes before each character, int64[n_characters + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])
