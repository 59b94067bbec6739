"""How probable is each byte of a text under a model? Every token scored once, documents apart, memory flat."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain_cli.cores import map_in_order, worker_count
from pretrain_cli.data.encoding.encoder import PIECE_CHARACTERS, Encoder
from pretrain_cli.errors import DataError
from pretrain_cli.evaluation.opening import Forward, OpenModel, choose_forward
from pretrain_cli.evaluation.tally import BLOCK_BYTES, DocumentTally, Sums, Tally
from pretrain_cli.evaluation.texts import Document, Text
from pretrain_cli.evaluation.windows import Columns, Window, slide, window_lengths
from pretrain_cli.model.files import not_finite

HEAD_ROWS = 512
"""Scored positions that go through the head at once: 100 MB of fp32 logits for a vocabulary of 49 152."""

CACHED_ROWS = 16
"""Of those, the ones that are summed up at once on a CPU: 3 MB of logits."""

BUFFERED_TOKENS = 1 << 17
"""Tokens of windows gathered before they are sorted by length."""

SPEED_TOKENS = 512
LEAST_TOKENS = 2


@dataclass(frozen=True)
class Job:
    """A window to score; its columns are ids and the byte of the document that each id begins at."""

    document: DocumentTally
    window: Window

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
    on_bytes: Callable[[int, float], None] = lambda n_bytes, tokens_per_second: None,
) -> Tally:
    """Score every byte of ``text`` exactly once.

    A document is its ids behind one BOS (EOS where there is none), cut into windows of the model's context that
    move on by ``stride`` (None: half the context). Only some batches' windows are held at a time.

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
    batches = _batches(_jobs(model, text, tally, stride), batch_tokens)
    first = next(batches, None)
    done_tokens = done_bytes = 0
    if first is not None:
        forward = choose_forward(model.model, _probe(first[0], model))
        started = time.perf_counter()

        def score(batch: list[Job]) -> tuple[list[Job], Sums, NDArray[np.int64]]:
            return batch, *_losses(model, forward, batch)

        for batch, nats, rank in map_in_order(score, itertools.chain([first], batches), worker_count(model.device)):
            _add(tally, batch, nats, rank, model.name)
            done_tokens += sum(job.window.length for job in batch)
            done_bytes += sum(job.n_bytes for job in batch)
            on_bytes(done_bytes, done_tokens / max(time.perf_counter() - started, 1e-9))
    if tally.token_counts.sum() < LEAST_TOKENS:
        raise DataError(f"The text '{text.name}' is too short to score.", "Give a text of at least two tokens.")
    return tally


def encode(model: OpenModel, document: Document, tally: Tally) -> tuple[DocumentTally, Iterator[Columns]]:
    """The document's sums, and its ids behind a BOS with the byte that each begins at, int64[2, n], piece by piece.

    A long document is encoded in pieces where that gives the ids of the whole.
    """
    opened = tally.open_document(document.name, document.source)

    def pieces() -> Iterator[Columns]:
        yield np.asarray([[model.first_id], [0]], dtype=np.int64)
        for text in join_parts(document.parts, model.encoder):
            first_byte = opened.n_bytes
            opened.grow(text)
            # A space that the cut leaves out comes back from the tokenizer, but belongs to the document's bytes.
            skipped = model.encoder.skips if first_byte else 0
            encoding = model.tokenizer.encode(text[skipped:], add_special_tokens=False)
            tally.unencoded_bytes += _unencoded(model, text, encoding.ids)
            starts = np.asarray([start for start, _ in encoding.offsets], dtype=np.int64) + skipped
            yield np.stack([np.asarray(encoding.ids, dtype=np.int64), first_byte + _byte_offsets(text)[starts]])

    return opened, pieces()


def join_parts(parts: Iterable[str], encoder: Encoder) -> Iterator[str]:
    """A document's text in pieces that can be encoded one by one; from the second on with the space of the cut."""
    held, wanted = "", 2 * PIECE_CHARACTERS
    for part in parts:
        held += part
        if len(held) < wanted:
            continue
        *whole, _ = encoder.pieces(held)
        at = 0
        for piece in whole:
            end = at + len(piece) + (encoder.skips if at else 0)
            yield held[at:end]
            at = end
        held = held[at:]
        # Text without a place to cut: look again when there is twice as much of it.
        wanted = max(2 * PIECE_CHARACTERS, 2 * len(held))
    if held:
        yield held


def _unencoded(model: OpenModel, text: str, ids: list[int]) -> int:
    """UTF-8 bytes of ``text`` that no id stands for."""
    n_bytes = len(text.encode("utf-8"))
    if model.token_bytes is not None:
        return n_bytes - int(model.token_bytes[np.asarray(ids, np.int64)].sum())
    # SentencePiece-style tokenizers take one leading space away when they decode: that is no loss.
    missing = n_bytes - len(model.tokenizer.decode(ids, skip_special_tokens=False).encode("utf-8", "replace"))
    return missing if missing > 1 else 0


def tokens_to_process(model: OpenModel, text: Text, stride: int | None) -> int:
    """About how many tokens will go through the model, from the beginnings of the text's first documents."""
    seen_bytes = seen_tokens = 0
    step = _step(model, stride)
    for document in text.read():
        piece, length = document.opening(20_000)
        tokens = len(model.tokenizer.encode(piece, add_special_tokens=False).ids)
        share = length / max(1, len(piece))
        seen_tokens += window_lengths(round(tokens * share) + 1, model.context, step)
        seen_bytes += round(len(piece.encode("utf-8")) * share)
        if seen_bytes > 200_000:
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


def _step(model: OpenModel, stride: int | None) -> int:
    return min(stride or max(1, model.context // 2), model.context - 1)


def _jobs(model: OpenModel, text: Text, tally: Tally, stride: int | None) -> Iterator[Job]:
    for document in text.read():
        opened, pieces = encode(model, document, tally)
        for window in slide(pieces, model.context, _step(model, stride)):
            yield Job(opened, window)


def _batches(jobs: Iterator[Job], batch_tokens: int) -> Iterator[list[Job]]:
    """Windows of like length together: padded tokens cost as much as real ones."""
    waiting: list[Job] = []
    waiting_tokens = 0
    for job in jobs:
        waiting.append(job)
        waiting_tokens += job.window.length
        if waiting_tokens >= max(BUFFERED_TOKENS, batch_tokens):
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
def _losses(model: OpenModel, forward: Forward, batch: list[Job]) -> tuple[Sums, NDArray[np.int64]]:
    """Loss in nats and rank of each scored token of the batch, [n]; logits live for HEAD_ROWS positions at a time."""
    longest = batch[0].window.length - 1
    ids = np.full((len(batch), longest), model.first_id, dtype=np.int64)
    wanted = np.zeros((len(batch), longest), dtype=bool)
    for row, job in enumerate(batch):
        window = job.window
        # The last token is only a target; padding stands to the right, where causal attention never looks.
        ids[row, : window.length - 1] = window.columns[0, :-1]
        wanted[row, window.scored_from - 1 : window.length - 1] = True
    target_ids = np.concatenate([job.window.columns[0, job.window.scored_from :] for job in batch])
    targets = torch.from_numpy(target_ids).to(model.device)
    hidden = forward.body(torch.from_numpy(ids).to(model.device))[torch.from_numpy(wanted).to(model.device)]
    nats, ranks = [], []
    for start in range(0, len(targets), HEAD_ROWS):
        whole = forward.head(hidden[start : start + HEAD_ROWS])
        # The passes over a few rows' logits stay in a CPU's cache; an accelerator takes them all at once.
        at_once = CACHED_ROWS if model.device.type == "cpu" else HEAD_ROWS
        for at in range(0, len(whole), at_once):
            logits, target = whole[at : at + at_once], targets[start + at : start + at + at_once]
            chosen = logits.gather(1, target[:, None])
            # One kernel that reads each row once: 2 times as fast as logsumexp.
            nats.append(-logits.float().log_softmax(dim=1).gather(1, target[:, None])[:, 0].double().cpu())
            ranks.append((logits > chosen).sum(dim=1).cpu())
    return torch.cat(nats).numpy(), torch.cat(ranks).numpy()


def _add(tally: Tally, batch: list[Job], nats: Sums, rank: NDArray[np.int64], name: str) -> None:
    """Add a batch's tokens to the sums.

    Raises:
        ModelError: a loss isn't finite.
    """
    if not np.isfinite(nats).all():
        raise not_finite(name)
    at = 0
    for job in batch:
        window = job.window
        here = slice(at, at + window.scored)
        token_ids, starts = window.columns[:, window.scored_from :]
        blocks = np.minimum(starts // BLOCK_BYTES, len(job.document.blocks) - 1)
        tally.add(job.document, blocks, token_ids, np.arange(window.scored_from, window.length), nats[here], rank[here])
        at += window.scored


def _probe(job: Job, model: OpenModel) -> torch.Tensor:
    return torch.from_numpy(job.window.columns[0, :16].copy())[None].to(model.device)


def _byte_offsets(text: str) -> NDArray[np.int64]:
    """UTF-8 bytes before each character, int64[n_characters + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])
