"""What does the model write in the middle of its training?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_cli.model.greedy import greedy_ids

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
            written = greedy_ids(_reader(model), ids, min(SAMPLE_TOKENS, limit - len(ids)), [eos_id], model.device)
    finally:
        model.train(training)
    text: str = tokenizer.decode(written)
    return text.rstrip("\ufffd")  # half a character at the end stays out


def _reader(model: Any) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    head = model.get_output_embeddings().weight

    def read(ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return F.linear(output.last_hidden_state[0, -1].to(head.dtype), head), output.past_key_values

    return read
