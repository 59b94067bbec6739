"""What does the model write in the middle of its training?"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer

SAMPLE_TOKENS = 40


def write_sample(model: Any, tokenizer: Tokenizer, prompt: str, first_id: int | None, eos_id: int | None) -> str:
    """The prompt's greedy continuation, 40 tokens or up to the document's end; draws no random numbers.

    Args:
        model: its own body and head, so it may be in training with a forward of its own.
        tokenizer: of the run.
        prompt: as typed; an empty one begins a document.
        first_id: BOS, where documents begin with one.
        eos_id: EOS, where documents end with one.
    """
    ids = ([first_id] if first_id is not None else []) + tokenizer.encode(prompt, add_special_tokens=False).ids
    if not ids:
        if eos_id is None:
            return ""
        ids = [eos_id]  # what stands before a new document
    limit = getattr(model.config, "max_position_embeddings", 2048)
    ids = ids[-max(1, limit - SAMPLE_TOKENS) :]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            written = _greedy(model, ids, min(SAMPLE_TOKENS, limit - len(ids)), eos_id)
    finally:
        model.train(training)
    text: str = tokenizer.decode(written)
    return text.rstrip("\ufffd")  # half a character at the end stays out


def _greedy(model: Any, ids: list[int], count: int, eos_id: int | None) -> list[int]:
    head = model.get_output_embeddings().weight
    written: list[int] = []
    window, cache = ids, None
    for _ in range(count):
        inputs = torch.tensor([window], device=model.device)
        output = model.base_model(input_ids=inputs, past_key_values=cache, use_cache=True)
        hidden, cache = output.last_hidden_state[:, -1], output.past_key_values
        token = int(torch.nn.functional.linear(hidden.to(head.dtype), head).argmax())
        if token == eos_id:
            break
        written.append(token)
        window = [token]
    return written
