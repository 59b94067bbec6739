"""What does each model write after the same few words?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretrain_cli.evaluation.opening import OpenModel
from pretrain_cli.evaluation.texts import Text

SAMPLE_TOKENS = 48
PROMPT_WORDS = 8


def choose_prompts(given: Sequence[str], texts: list[Text], count: int) -> list[str]:
    """``count`` of the ``given`` prompts, or the first words of the first documents, the texts taking turns."""
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
    started, cache = len(ids), None
    window = torch.tensor([ids], device=model.device)
    for _ in range(min(SAMPLE_TOKENS, model.context - started)):
        out = model.model(input_ids=window, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        token = int(out.logits[0, -1].argmax())
        if token in model.end_ids:
            break
        ids.append(token)
        window = torch.tensor([[token]], device=model.device)
    text: str = model.tokenizer.decode(ids[started:])
    return text.rstrip("\ufffd")  # half a character at the end stays out


def _openings(text: Text, count: int) -> list[str]:
    found = []
    for document in text.read():
        opening, _ = document.opening(400)
        words = opening.split()[:PROMPT_WORDS]
        if len(words) == PROMPT_WORDS:
            found.append(" ".join(words))
        if len(found) == count:
            break
    return found
