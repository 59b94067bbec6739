"""Opens a named model for scoring: weights, tokenizer and limits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.engine_choice import choose_encoder
from pretrain_cli.data.encoding.vocabulary_bytes import lacks_bytes, token_bytes
from pretrain_cli.evaluation.cpu_kernels import speed_up
from pretrain_cli.evaluation.reading import read_general
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.model.files import check_vocabulary
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.model.limits import position_limit, text_config
from pretrain_cli.model.load import embedding_rows, load_model
from pretrain_cli.model.names import NamedModel, open_folders, removal_told
from pretrain_cli.model.probes import check_causal
from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

PROBE_TOKENS = 160
"""Tokens that two ways to compute a model are compared on: more than two blocks of attention."""
PROSE_DOCUMENTS = 6
"""Documents of the general text that the encoder is tried on."""


@dataclass(frozen=True)
class OpenModel:
    """A model that is ready to score.

    Attributes:
        encoder: knows where a long text can be cut without changing ids.
        token_bytes: bytes that each id stands for, where the vocabulary can't write every byte; else None.
        first_id: comes before each document, so that its first token is predicted too.
        adds_first: whether the tokenizer itself puts BOS before a text, as it does before a prompt.
        end_ids: end a document.
        vocab_size: rows of the embedding.
        context: tokens in a window, within the model's own limit.
    """

    name: str
    location: str
    model: PreTrainedModel
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
    with removal_told(named):
        folder, tokenizer_folder = open_folders(named, artifacts)
        model = load_model(folder, device=device, dtype=dtype)
        info = read_tokenizer(tokenizer_folder)
        tokenizer = open_tokenizer(info.file)
    model.eval()
    check_causal(model, named.name)
    # Control tokens that are written in a text are text: each of their bytes counts.
    tokenizer.encode_special_tokens = True
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = embedding_rows(model)
    check_vocabulary(info.vocab_size, rows, f"'{named.name}'")
    if torch.device(device).type == "cpu":
        keep_freed_memory()
        probe = min(PROBE_TOKENS, position_limit(model) or PROBE_TOKENS)
        speed_up(model, torch.arange(probe)[None] % rows)
    prose = ["".join(document.parts) for document in itertools.islice(read_general(), PROSE_DOCUMENTS)]
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
        end_ids=end_ids(info.eos_id, *_named_ends(model)),
        vocab_size=rows,
        parameters=parameters,
        context=_within_limit(model, context),
        device=torch.device(device),
    )


def _within_limit(model: PreTrainedModel, context: int) -> int:
    return max(2, min(context, position_limit(model) or context))


def _named_ends(model: PreTrainedModel) -> list[object]:
    """What the model's configs call the id that ends a document; one that also sees or hears has a config for text."""
    configs = (model.config, text_config(model.config), model.generation_config)
    return [getattr(config, "eos_token_id", None) for config in configs]
