"""Turns logits into tokens and tokens into text, for a batch of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.generation.engines.protocol import MOST_ROWS, LogitsEngine
from pretrain_cli.generation.prompts import prompt_ids
from pretrain_cli.generation.results import ALTERNATIVES, GeneratedText, OnText, TokenProbability
from pretrain_cli.generation.sampling import Sampler
from pretrain_cli.generation.text_stream import BROKEN, TextStream
from pretrain_cli.model.files import not_finite
from pretrain_cli.tokenizer.load import TokenizerInfo


@dataclass
class Row:
    """One sample while it is written."""

    index: int
    prompt: str
    prompt_ids: list[int]
    limit: int
    seed: int
    sampler: Sampler
    stream: TextStream
    tokens_as_text: TextStream
    finish: str = ""
    ids: list[int] = field(default_factory=list)
    probabilities: list[TokenProbability] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass(frozen=True)
class TorchWriter:
    """A `Writer` over any engine that gives logits."""

    name: str
    engine: LogitsEngine
    tokenizer: Tokenizer
    info: TokenizerInfo
    end_ids: frozenset[int]

    def write(
        self,
        prompts: Sequence[str],
        config: GenerateConfig,
        warn: Callable[[str], None],
        on_text: OnText | None,
        started: float,
    ) -> list[GeneratedText]:
        """Every sample of every prompt, in order; the first token is timed from ``started``."""
        rows = _rows(self, prompts, config, warn)
        threads = torch.get_num_threads()
        torch.set_num_threads(self.engine.threads)
        try:
            for at in range(0, len(rows), MOST_ROWS):
                _write_batch(self, rows[at : at + MOST_ROWS], config, on_text)
        finally:
            torch.set_num_threads(threads)
        return [_finished(row, self.name, started) for row in rows]


def _rows(
    writer: TorchWriter, prompts: Sequence[str], config: GenerateConfig, warn: Callable[[str], None]
) -> list[Row]:
    """A row for each sample of each prompt, in order."""
    rows: list[Row] = []
    for prompt in prompts:
        ids, warning = prompt_ids(prompt, config, writer.tokenizer, writer.info, writer.engine.context, writer.name)
        if warning:
            warn(warning)
        for number in range(config.samples):
            seed = config.seed + number
            rows.append(
                Row(
                    index=len(rows),
                    prompt=prompt,
                    prompt_ids=ids,
                    limit=min(config.max_tokens, writer.engine.context - len(ids)) or 1,
                    seed=seed,
                    sampler=Sampler(config, ids, seed),
                    stream=TextStream(writer.tokenizer, ids, config.stop),
                    tokens_as_text=TextStream(writer.tokenizer, ids),
                )
            )
    return rows


def _write_batch(writer: TorchWriter, rows: list[Row], config: GenerateConfig, on_text: OnText | None) -> None:
    logits = writer.engine.start([row.prompt_ids for row in rows], max(row.limit for row in rows)).cpu()
    open_rows = list(range(len(rows)))
    while True:
        for place, logit in zip(open_rows, logits, strict=True):
            _advance(rows[place], logit, writer, config, on_text)
        open_rows = [place for place in open_rows if not rows[place].finish]
        if not open_rows:
            return
        logits = writer.engine.step(open_rows, [rows[place].ids[-1] for place in open_rows]).cpu()


def _advance(row: Row, logits: Tensor, writer: TorchWriter, config: GenerateConfig, on_text: OnText | None) -> None:
    """Choose ``row``'s next token and show what it completes."""
    # Rows of the embedding that the tokenizer doesn't know can't be shown: they are never drawn.
    known = logits[: writer.info.vocab_size]
    token = _choose(row, known, writer)
    row.sampler.accept(token)
    row.last_s = time.perf_counter()
    row.first_s = row.first_s or row.last_s
    row.ids.append(token)
    if token in writer.end_ids:
        row.finish = "eos"
    else:
        if config.probabilities:
            row.probabilities.append(_probability(known, token, row.tokens_as_text.push(token), writer.tokenizer))
        _show(row, row.stream.push(token), on_text)
        if row.stream.stopped:
            row.finish = "stop"
        elif len(row.ids) >= row.limit:
            row.finish = "length" if row.limit == config.max_tokens else "context"
    if row.finish:
        _show(row, row.stream.finish(), on_text)


def _choose(row: Row, logits: Tensor, writer: TorchWriter) -> int:
    """The token; where rounding would decide, from logits that are the same for a row alone and in a batch."""
    if not logits.isfinite().all():
        raise not_finite(writer.name)
    drawn = row.sampler.draw(logits)
    read_at_once = not row.ids and not writer.engine.in_parts
    if drawn.sure or not writer.engine.rounds or read_at_once:
        return drawn.token
    again = writer.engine.reread([*row.prompt_ids, *row.ids]).cpu()[: len(logits)]
    return row.sampler.draw(again).token


def _show(row: Row, piece: str, on_text: OnText | None) -> None:
    if piece and on_text is not None:
        on_text(row.index, piece)


def _probability(logits: Tensor, token: int, text: str, tokenizer: Tokenizer) -> TokenProbability:
    """Under the model itself, before temperature and cuts; ``text`` is what the token completes."""
    probabilities = logits.softmax(dim=0)
    values, ids = probabilities.topk(min(ALTERNATIVES, len(probabilities)))
    alternatives = [
        (_name(other, tokenizer), value) for other, value in zip(ids.tolist(), values.tolist(), strict=True)
    ]
    return TokenProbability(token, text, float(probabilities[token]), alternatives)


def _name(token: int, tokenizer: Tokenizer) -> str:
    """The token as text; where it is only a part of a character, as the vocabulary writes it."""
    text = str(tokenizer.decode([token], skip_special_tokens=False))
    return str(tokenizer.id_to_token(token)) if BROKEN in text else text


def _finished(row: Row, model: str, started: float) -> GeneratedText:
    seconds = row.last_s - row.first_s
    return GeneratedText(
        prompt=row.prompt,
        text=row.stream.text,
        tokens=len(row.ids),
        seconds_to_first_token=round(row.first_s - started, 4),
        tokens_per_second=round((len(row.ids) - 1) / seconds, 2) if seconds > 0 else 0.0,
        finish=row.finish,
        seed=row.seed,
        model=model,
        ids=row.ids,
        probabilities=row.probabilities,
    )
