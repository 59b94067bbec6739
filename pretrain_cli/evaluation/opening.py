"""How does a named model become something that can be scored: weights, tokenizer, limits?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.engine_choice import choose_encoder
from pretrain_cli.data.encoding.vocabulary_bytes import lacks_bytes, token_bytes
from pretrain_cli.evaluation.kernels import speed_up
from pretrain_cli.evaluation.texts import read_general
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.model.files import check_vocabulary
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.model.load import embedding_rows, load_model
from pretrain_cli.model.names import NamedModel, open_folders
from pretrain_cli.run_record import read_run_config, read_run_record
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

UNTRAINED_CONTEXT = 1024
"""Tokens a window holds for a model that wasn't trained here: the transformers guide's own figure."""

PROBE_TOKENS = 160
"""Tokens that two ways to compute a model are compared on: more than two blocks of attention."""


@dataclass(frozen=True)
class Forward:
    """The forward pass in two halves: ids int64[B, T] -> hidden[B, T, H], and rows of it [n, H] -> logits[n, V]."""

    body: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OpenModel:
    """A model ready to score.

    Attributes:
        encoder: knows where a long text can be cut without a change of ids.
        token_bytes: bytes that each id stands for, where the vocabulary can't write every byte; else None.
        first_id: stands before each document, so that its first token is predicted too.
        adds_first: whether the tokenizer itself puts BOS before a text, as a prompt then has it.
        end_ids: end a document.
    """

    name: str
    location: str
    model: Any
    tokenizer: Tokenizer
    encoder: Encoder
    token_bytes: NDArray[np.int64] | None
    first_id: int
    adds_first: bool
    end_ids: frozenset[int]
    vocab_size: int
    parameters: int
    context: int
    device: torch.device


def open_model(named: NamedModel, artifacts: Artifacts, device: str, dtype: torch.dtype, context: int) -> OpenModel:
    """Load weights and tokenizer of ``named``; ``context`` in tokens, within the model's own limit.

    Raises:
        ModelError: weights or tokenizer are missing, damaged, or don't fit each other.
    """
    folder, tokenizer_folder = open_folders(named, artifacts)
    model = load_model(folder, device=device, dtype=dtype)
    model.eval()
    info = read_tokenizer(tokenizer_folder)
    tokenizer = open_tokenizer(info.file)
    # Control tokens that are written in a text are text: each of their bytes counts.
    tokenizer.encode_special_tokens = True
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = embedding_rows(model)
    check_vocabulary(info.vocab_size, rows, f"'{named.name}'")
    if torch.device(device).type == "cpu":
        keep_freed_memory()
        speed_up(model, torch.arange(PROBE_TOKENS)[None] % rows)
    prose = ["".join(document.parts) for document in itertools.islice(read_general(), 6)]
    settings, _ = choose_encoder(info.file, "tokenizers", False, prose)
    return OpenModel(
        name=named.name,
        location=named.location,
        model=model,
        tokenizer=tokenizer,
        encoder=Encoder(settings, counts_lost=False),
        token_bytes=token_bytes(info.file) if lacks_bytes(info.file) else None,
        first_id=info.first_id,
        adds_first=info.adds_bos,
        end_ids=end_ids(info.eos_id, model.config.eos_token_id, model.generation_config.eos_token_id),
        vocab_size=rows,
        parameters=parameters,
        context=_within_limit(model, context),
        device=torch.device(device),
    )


def choose_forward(model: Any, probe: Tensor) -> Forward:
    """The cheapest exact way to logits: the head apart, so that it runs on wanted positions only.

    Some architectures scale or cap logits after the head: one comparison on ``probe`` int64[1, T] tells, and
    those keep their own forward pass.
    """

    def whole(ids: Tensor) -> Tensor:
        return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    body, head = model.base_model, model.get_output_embeddings()

    def hidden(ids: Tensor) -> Tensor:
        # use_cache=False: with a cache, transformers would build a mask as for generation.
        return body(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    try:
        with torch.inference_mode():
            same = body is not model and torch.allclose(head(hidden(probe)), whole(probe), rtol=1e-3, atol=1e-3)
    except (AttributeError, TypeError, RuntimeError):
        same = False
    return Forward(hidden, head) if same else Forward(whole, lambda logits: logits)


def _within_limit(model: Any, context: int) -> int:
    limit = getattr(model.config, "max_position_embeddings", None)
    return max(2, min(context, limit if isinstance(limit, int) and limit > 1 else context))


def shared_context(models: Sequence[NamedModel], context: int | str) -> int:
    """Tokens of a window for all models alike: as asked, or the shortest rows that one of them was trained with.

    More context makes any model better: models that see more of a text than others can't be compared on it.
    """
    if isinstance(context, int):
        return context
    return min((length for model in models if (length := _row_length(model))), default=UNTRAINED_CONTEXT)


def _row_length(named: NamedModel) -> int | None:
    """The row length that a run was trained with, from its record or config."""
    if named.run is None:
        return None
    record = read_run_record(named.run)
    if record is not None and record.sequence_length is not None:
        return record.sequence_length
    length = read_run_config(named.run).get("data", {}).get("sequence_length")
    return length if isinstance(length, int) else None
