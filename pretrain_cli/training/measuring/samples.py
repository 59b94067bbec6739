"""Writes texts with the model in the middle of its training."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from pretrain_cli.model.greedy import greedy_ids
from pretrain_cli.progress import Progress

SAMPLE_TOKENS = 40


class SampleWriter:
    """Continues the same prompts at several steps: on the screen, in samples.jsonl, and in a tracker's table.

    Args:
        model: that is trained.
        tokenizer: of the run.
        prompts: as typed.
        first_id: BOS, where documents begin with one.
        eos_id: EOS, where documents end with one.
        path: samples.jsonl.
        progress: shows each text.
        report: receives the step and its (prompt, text) pairs.

    Attributes:
        seconds: that the last samples took; None before the first.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        first_id: int | None,
        eos_id: int | None,
        path: Path,
        progress: Progress,
        report: Callable[[int, Sequence[tuple[str, str]]], None] | None = None,
    ) -> None:
        self._model, self._tokenizer, self._prompts = model, tokenizer, prompts
        self._first_id, self._eos_id = first_id, eos_id
        self._path, self._progress, self._report = path, progress, report
        self._written: set[int] = set()
        self.seconds: float | None = None

    def write(self, step: int) -> None:
        """Write the texts of ``step``, once."""
        if step in self._written:
            return
        self._written.add(step)
        began = time.monotonic()
        texts = [
            (prompt, write_sample(self._model, self._tokenizer, prompt, self._first_id, self._eos_id))
            for prompt in self._prompts
        ]
        for prompt, text in texts:
            self._progress.sample(prompt, text, step)
            line = json.dumps({"step": step, "prompt": prompt, "text": text}, ensure_ascii=False)
            with contextlib.suppress(OSError), open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")  # a full disk costs the sample, not the run
        if self._report is not None:
            self._report(step, texts)
        self.seconds = time.monotonic() - began


def write_sample(
    model: PreTrainedModel, tokenizer: Tokenizer, prompt: str, first_id: int | None, eos_id: int | None
) -> str:
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
        ids = [eos_id]  # it comes before a new document
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


def _reader(model: PreTrainedModel) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    head = model.get_output_embeddings().weight

    def read(ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        return F.linear(output.last_hidden_state[0, -1].to(head.dtype), head), output.past_key_values

    return read
