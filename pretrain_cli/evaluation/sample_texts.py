"""Lets each model continue the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.model.continuing import reader_of
from pretrain_cli.model.greedy import greedy_ids

SAMPLE_TOKENS = 48
PROMPT_WORDS = 8
OPENING_CHARACTERS = 400


def choose_prompts(given: Sequence[str], texts: list[Text], count: int) -> list[str]:
    """``count`` of the ``given`` prompts, or else the first words of the first documents, from each text in turn."""
    if given or not count:
        return list(given[:count])
    prompts: list[str] = []
    openings = [_openings(text, count) for text in texts]
    for place in range(count):
        prompts += [found[place] for found in openings if place < len(found)]
    return list(dict.fromkeys(prompts))[:count]


@torch.inference_mode()
def write_sample(model: OpenModel, prompt: str) -> str:
    """The prompt's greedy continuation as `ptk generate` writes it: SAMPLE_TOKENS tokens, or up to the end."""
    ids = model.tokenizer.encode(prompt, add_special_tokens=False).ids
    if model.adds_first or not ids:
        ids = [model.first_id, *ids]
    written = greedy_ids(
        reader_of(model.model), ids, min(SAMPLE_TOKENS, model.context - len(ids)), model.end_ids, model.device
    )
    text: str = model.tokenizer.decode(written)
    return text.rstrip("\ufffd")  # half a character at the end is left out


def _openings(text: Text, count: int) -> list[str]:
    found = []
    for document in text.read():
        opening, _ = document.opening(OPENING_CHARACTERS)
        words = opening.split()[:PROMPT_WORDS]
        if len(words) == PROMPT_WORDS:
            found.append(" ".join(words))
        if len(found) == count:
            break
    return found
