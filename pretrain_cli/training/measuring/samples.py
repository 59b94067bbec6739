"""Writes texts with the model in the middle of its training."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pretrain_cli.model.continuing import TextReader, reader_in_training
from pretrain_cli.model.greedy import greedy_ids
from pretrain_cli.model.limits import DEFAULT_CONTEXT, position_limit
from pretrain_cli.progress import Progress
from pretrain_cli.storage import open_own

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
        self._read: TextReader | None = None
        self._written: set[int] = set()
        self.seconds: float | None = None

    def write(self, step: int) -> None:
        """Write the texts of ``step``, once."""
        if step in self._written:
            return
        self._written.add(step)
        began = time.monotonic()
        self._read = self._read or reader_in_training(self._model)
        texts = [
            (prompt, write_sample(self._model, self._read, self._tokenizer, prompt, self._first_id, self._eos_id))
            for prompt in self._prompts
        ]
        for prompt, text in texts:
            self._progress.sample(prompt, text, step)
            line = json.dumps({"step": step, "prompt": prompt, "text": text}, ensure_ascii=False)
            with contextlib.suppress(OSError), open_own(self._path, "a") as file:
                file.write(line + "\n")  # a full disk costs the sample, not the run
        if self._report is not None:
            self._report(step, texts)
        self.seconds = time.monotonic() - began


def write_sample(
    model: PreTrainedModel,
    read: TextReader,
    tokenizer: Tokenizer,
    prompt: str,
    first_id: int | None,
    eos_id: int | None,
) -> str:
    """The prompt's greedy continuation, 40 tokens or up to the document's end; draws no random numbers.

    Args:
        model: may be in training.
        read: with it.
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
    limit = position_limit(model) or DEFAULT_CONTEXT
    ids = ids[-max(1, limit - SAMPLE_TOKENS) :]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            written = greedy_ids(read, ids, min(SAMPLE_TOKENS, limit - len(ids)), [eos_id], model.device)
    finally:
        model.train(training)
    text: str = tokenizer.decode(written)
    return text.rstrip("\ufffd")  # half a character at the end stays out
