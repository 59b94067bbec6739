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
        prompt: as typed.
        first_id: BOS, where documents begin with one.
        eos_id: EOS, where documents end with one.
    """
    ids = ([first_id] if first_id is not None else []) + tokenizer.encode(prompt, add_special_tokens=False).ids
    if not ids:
        return ""
    started, training = len(ids), model.training
    limit = getattr(model.config, "max_position_embeddings", 2048)
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(SAMPLE_TOKENS):
                window = torch.tensor([ids[-limit:]], device=model.device)
                hidden = model.base_model(input_ids=window, use_cache=False).last_hidden_state[:, -1]
                head = model.get_output_embeddings().weight
                token = int(torch.nn.functional.linear(hidden.to(head.dtype), head).argmax())
                if token == eos_id:
                    break
                ids.append(token)
    finally:
        model.train(training)
    text: str = tokenizer.decode(ids[started:])
    return text.rstrip("\ufffd")  # half a character at the end stays out
