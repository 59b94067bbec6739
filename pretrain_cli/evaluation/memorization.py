"""How much of a text does the model continue word for word? 32 tokens of prompt, 32 to match, greedily."""

from __future__ import annotations

import itertools
import random

import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.evaluation.opening import OpenModel
from pretrain_cli.evaluation.texts import Text
from pretrain_cli.progress import Progress

PROMPT_TOKENS = 32
MATCH_TOKENS = 32
PASSAGES = 64


def measure_memorization(
    model: OpenModel, texts: list[Text], artifacts: Artifacts, seed: int, progress: Progress
) -> dict[str, float]:
    """Share of passages, by text and for the training rows, that greedy decoding repeats (arXiv 2202.07646)."""
    passages = {text.name: _passages(model, text, seed) for text in texts}
    if artifacts.train_rows.is_dir() and (artifacts.tokenizer / "tokenizer.json").is_file():
        passages["training"] = _training_passages(model, artifacts)
    shares = {}
    for name, rows in passages.items():
        if rows:
            progress.stage(f"memorisation of {name}", len(rows), "rows")
            shares[name] = _repeated(model, torch.tensor(rows)) / len(rows)
            progress.end_stage()
    return shares


@torch.inference_mode()
def _repeated(model: OpenModel, rows: torch.Tensor) -> int:
    """Rows int64[n, 64] whose second half is the greedy continuation of their first.

    Greedy decoding repeats a passage exactly when each token is the most probable one after the true ones before
    it: one forward pass tells.
    """
    count = 0
    for batch in rows.to(model.device).split(8):  # type: ignore[no-untyped-call]
        logits = model.model(input_ids=batch, use_cache=False).logits[:, PROMPT_TOKENS - 1 : -1]
        count += int((logits.argmax(dim=-1) == batch[:, PROMPT_TOKENS:]).all(dim=1).sum())
    return count


def _passages(model: OpenModel, text: Text, seed: int) -> list[list[int]]:
    length = PROMPT_TOKENS + MATCH_TOKENS
    found: list[list[int]] = []
    for document in text.read():
        ids = model.tokenizer.encode(document.text[:100_000], add_special_tokens=False).ids
        found += [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    return random.Random(seed).sample(found, min(PASSAGES, len(found)))


def _training_passages(model: OpenModel, artifacts: Artifacts) -> list[list[int]]:
    from tokenizers import Tokenizer

    from pretrain_cli.data.store import iterate_documents

    own = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    found: list[list[int]] = []
    length = PROMPT_TOKENS + MATCH_TOKENS
    for document in itertools.islice(iterate_documents(artifacts.train_rows), PASSAGES):
        text = own.decode(document.ids[:20_000].tolist(), skip_special_tokens=True)
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
        found += [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    return found[:: max(1, len(found) // PASSAGES)][:PASSAGES]
