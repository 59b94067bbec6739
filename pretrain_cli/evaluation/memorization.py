"""Measures how much of a text a model continues word for word: 32 tokens of prompt, 32 to match, greedily."""

from __future__ import annotations

import random

import numpy as np
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.evaluation.results import Memorization
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.progress import Progress

PROMPT_TOKENS = 32
MATCH_TOKENS = 32
PASSAGES = 64
BATCH = 8
READ_CHARACTERS = 20_000
"""Only this much of the beginning of a document gives passages."""


def measure_memorization(
    model: OpenModel, texts: list[Text], artifacts: Artifacts, seed: int, progress: Progress
) -> dict[str, Memorization]:
    """Share of passages that greedy decoding repeats, by text and for the training rows (arXiv 2202.07646)."""
    passages = {text.name: _passages(model, text, seed) for text in texts}
    if artifacts.train_rows.is_dir() and (artifacts.tokenizer / "tokenizer.json").is_file():
        passages["training"] = _training_passages(model, artifacts, seed)
    shares = {}
    for name, rows in passages.items():
        if rows:
            progress.stage(f"memorization of {name} by {model.name}", len(rows), "rows")
            repeated = 0
            for start in range(0, len(rows), BATCH):
                repeated += _repeated(model, torch.tensor(rows[start : start + BATCH]))
                progress.advance(min(start + BATCH, len(rows)))
            shares[name] = Memorization(repeated / len(rows), len(rows))
            progress.end_stage()
    return shares


@torch.inference_mode()
def _repeated(model: OpenModel, rows: torch.Tensor) -> int:
    """Rows int64[n, 64] whose second half is the greedy continuation of their first.

    Greedy decoding repeats a passage exactly when each token is the most probable one after the true tokens before
    it, so one forward pass is enough.
    """
    rows = rows.to(model.device)
    logits = model.model(input_ids=rows, use_cache=False).logits[:, PROMPT_TOKENS - 1 : -1]
    return int((logits.argmax(dim=-1) == rows[:, PROMPT_TOKENS:]).all(dim=1).sum())


def _cut(ids: list[int]) -> list[list[int]]:
    length = PROMPT_TOKENS + MATCH_TOKENS
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def _passages(model: OpenModel, text: Text, seed: int) -> list[list[int]]:
    """Up to PASSAGES passages, each equally likely, by reservoir sampling (Vitter 1985)."""
    generator = random.Random(seed)
    kept: list[list[int]] = []
    seen = 0
    for document in text.read():
        opening, _ = document.opening(READ_CHARACTERS)
        for passage in _cut(model.tokenizer.encode(opening, add_special_tokens=False).ids):
            seen += 1
            if len(kept) < PASSAGES:
                kept.append(passage)
            elif (place := generator.randrange(seen)) < PASSAGES:
                kept[place] = passage
    return kept


def _training_passages(model: OpenModel, artifacts: Artifacts, seed: int) -> list[list[int]]:
    """A passage from the longest piece of each of some rows drawn by seed, in the model's own tokens."""
    from tokenizers import Tokenizer

    from pretrain_cli.data.rows.reader import open_rows

    own = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    rows = open_rows(artifacts.train_rows)
    found = []
    for row in random.Random(seed).sample(range(len(rows)), min(4 * PASSAGES, len(rows))):
        pieces = rows.pieces(row).astype(np.int64)
        longest = int(pieces.argmax())
        start = int(pieces[:longest].sum())
        ids = rows.input_ids[row][start : start + int(pieces[longest])].tolist()
        text = own.decode(ids, skip_special_tokens=True).strip("\ufffd")
        found += _cut(model.tokenizer.encode(text, add_special_tokens=False).ids)[:1]
        if len(found) == PASSAGES:
            break
    return found
