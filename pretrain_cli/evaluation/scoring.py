"""Scores every byte of a text once: documents don't see each other, and memory doesn't grow with the text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain_cli.cores import map_in_order, worker_count
from pretrain_cli.evaluation.encoding import encode
from pretrain_cli.evaluation.forward import Forward, choose_forward
from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.evaluation.sums import BLOCK_BYTES, DocumentSums, Sums, TextSums
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.evaluation.texts import too_short
from pretrain_cli.evaluation.windows import TokenWindow, slide
from pretrain_cli.model.files import not_finite
from pretrain_cli.tokenizer.round_trip import RoundTrip

HEAD_ROWS = 512
"""Scored positions that go through the head at once: 100 MB of fp32 logits for a vocabulary of 49,152."""
CACHED_ROWS = 16
"""Of those, the ones that are summed up at once on a CPU: 3 MB of logits."""
BUFFERED_TOKENS = 1 << 17
"""Tokens of windows that are gathered before they are sorted by length."""
LEAST_TOKENS = 2
PROBE_TOKENS = 16


@dataclass(frozen=True)
class DocumentWindow:
    """A window to score; its columns are the ids, and the byte of the document that each id begins at."""

    document: DocumentSums
    window: TokenWindow

    @property
    def n_bytes(self) -> int:
        """About how many bytes of text its scored tokens stand for."""
        starts = self.window.columns[1]
        return int(starts[-1] - starts[self.window.scored_from - 1])


def score_text(
    model: OpenModel,
    text: Text,
    *,
    stride: int | None,
    batch_tokens: int,
    on_bytes: Callable[[int, int, int], None] = lambda n_bytes, tokens, processed: None,
) -> TextSums:
    """Score every byte of ``text`` exactly once.

    A document is its ids after one BOS (EOS where there is none), cut into windows of the model's context that
    advance by ``stride``. Only the windows of a few batches are held at a time.

    Args:
        model: the model, its tokenizer and its context.
        text: the documents.
        stride: new tokens in each window; None: half the context.
        batch_tokens: tokens, padding included, in one forward pass.
        on_bytes: told after each batch the bytes and the tokens scored so far, and the tokens that went through the
            model for them, about twice as many: windows overlap.

    Raises:
        DataError: the text has fewer than two tokens.
        ModelError: the model's probabilities aren't finite.
    """
    sums = TextSums(model.vocab_size, RoundTrip(model.tokenizer))
    batches = _batches(_windows(model, text, sums, stride), batch_tokens)
    first = next(batches, None)
    done_bytes = done_tokens = processed = 0
    if first is not None:
        forward = choose_forward(model.model, _probe(first[0], model))

        def score(batch: list[DocumentWindow]) -> tuple[list[DocumentWindow], Sums, NDArray[np.int64]]:
            return batch, *_losses(model, forward, batch)

        for batch, nats, rank in map_in_order(score, itertools.chain([first], batches), worker_count(model.device)):
            _add(sums, batch, nats, rank, model.name)
            done_tokens += sum(entry.window.scored for entry in batch)
            processed += sum(entry.window.length for entry in batch)
            done_bytes += sum(entry.n_bytes for entry in batch)
            on_bytes(done_bytes, done_tokens, processed)
    if sums.token_counts.sum() < LEAST_TOKENS:
        raise too_short(text)
    return sums


def window_step(model: OpenModel, stride: int | None) -> int:
    """Tokens that a window is ahead of the one before it."""
    return min(stride or max(1, model.context // 2), model.context - 1)


def _windows(model: OpenModel, text: Text, sums: TextSums, stride: int | None) -> Iterator[DocumentWindow]:
    for document in text.read():
        opened, pieces = encode(model, document, sums)
        for window in slide(pieces, model.context, window_step(model, stride)):
            yield DocumentWindow(opened, window)


def _batches(windows: Iterator[DocumentWindow], batch_tokens: int) -> Iterator[list[DocumentWindow]]:
    """Windows of similar length together: padding costs as much as tokens."""
    waiting: list[DocumentWindow] = []
    waiting_tokens = 0
    for entry in windows:
        waiting.append(entry)
        waiting_tokens += entry.window.length
        if waiting_tokens >= max(BUFFERED_TOKENS, batch_tokens):
            yield from _cut_batches(waiting, batch_tokens)
            waiting, waiting_tokens = [], 0
    yield from _cut_batches(waiting, batch_tokens)


def _cut_batches(windows: list[DocumentWindow], batch_tokens: int) -> Iterator[list[DocumentWindow]]:
    batch: list[DocumentWindow] = []
    for entry in sorted(windows, key=lambda entry: -entry.window.length):
        if batch and (len(batch) + 1) * batch[0].window.length > batch_tokens:
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


@torch.inference_mode()
def _losses(model: OpenModel, forward: Forward, batch: list[DocumentWindow]) -> tuple[Sums, NDArray[np.int64]]:
    """Loss in nats and rank of each scored token of the batch, [n]; logits exist for HEAD_ROWS positions at a time."""
    longest = batch[0].window.length - 1
    ids = np.full((len(batch), longest), model.first_id, dtype=np.int64)
    wanted = np.zeros((len(batch), longest), dtype=bool)
    for row, entry in enumerate(batch):
        window = entry.window
        # The last token is only a target; padding is on the right, where causal attention never looks.
        ids[row, : window.length - 1] = window.columns[0, :-1]
        wanted[row, window.scored_from - 1 : window.length - 1] = True
    target_ids = np.concatenate([entry.window.columns[0, entry.window.scored_from :] for entry in batch])
    targets = torch.from_numpy(target_ids).to(model.device)
    hidden = forward.body(torch.from_numpy(ids).to(model.device))[torch.from_numpy(wanted).to(model.device)]
    nats, ranks = [], []
    for start in range(0, len(targets), HEAD_ROWS):
        whole = forward.head(hidden[start : start + HEAD_ROWS])
        # A few rows' logits stay in a CPU's cache between the passes; an accelerator takes them all at once.
        at_once = CACHED_ROWS if model.device.type == "cpu" else HEAD_ROWS
        for at in range(0, len(whole), at_once):
            logits, target = whole[at : at + at_once], targets[start + at : start + at + at_once]
            chosen = logits.gather(1, target[:, None])
            # One kernel that reads each row once: twice as fast as logsumexp. Apple's GPU has no doubles.
            nats.append(-logits.float().log_softmax(dim=1).gather(1, target[:, None])[:, 0].cpu().double())
            ranks.append((logits > chosen).sum(dim=1).cpu())
    return torch.cat(nats).numpy(), torch.cat(ranks).numpy()


def _add(sums: TextSums, batch: list[DocumentWindow], nats: Sums, rank: NDArray[np.int64], name: str) -> None:
    """Add a batch's tokens to the sums.

    Raises:
        ModelError: a loss isn't finite.
    """
    if not np.isfinite(nats).all():
        raise not_finite(name)
    at = 0
    for entry in batch:
        window = entry.window
        here = slice(at, at + window.scored)
        token_ids, starts = window.columns[:, window.scored_from :]
        blocks = np.minimum(starts // BLOCK_BYTES, len(entry.document.blocks) - 1)
        context = np.arange(window.scored_from, window.length)
        sums.add(entry.document, blocks, token_ids, context, nats[here], rank[here])
        at += window.scored


def _probe(entry: DocumentWindow, model: OpenModel) -> torch.Tensor:
    return torch.from_numpy(entry.window.columns[0, :PROBE_TOKENS].copy())[None].to(model.device)
