"""Gives a base a row for each entry that was added to its tokenizer, in a folder that opens like any model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedModel

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import ModelConfig
from pretrain_cli.errors import ModelError
from pretrain_cli.model.files import check_vocabulary
from pretrain_cli.model.kept import is_kept, keep
from pretrain_cli.model.load import embedding_rows, load_model
from pretrain_cli.storage import source_hash, temporary_folder
from pretrain_cli.tokenizer.copy import copy_tokenizer_files
from pretrain_cli.tokenizer.extend import pieces_of
from pretrain_cli.tokenizer.load import TokenizerInfo


def grow_base(location: str, wanted: ModelConfig, tokenizer: TokenizerInfo, artifacts: Artifacts) -> Path:
    """The base at ``location`` with the rows of new tokens, under ``artifacts.bases``; made once, then found there.

    Args:
        location: folder or Hub id of the base.
        wanted: what new rows start as, and what their number is filled up to.
        tokenizer: the prepared data's, which continues that of the base.
        artifacts: where the result is kept.

    Raises:
        ModelError: the base is damaged, or has no embedding of its own.
    """
    folder = Path(location)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    source = source_hash(files) if folder.is_dir() else location
    told = f"{source} {tokenizer.fingerprint} {wanted.new_tokens} {wanted.vocab_multiple}"
    grown = artifacts.bases / f"{folder.name}-grown-{xxhash.xxh3_128_hexdigest(told.encode())[:16]}"
    if is_kept(grown, "config.json"):
        return grown
    model = load_model(location, dtype="auto", trust_remote_code=wanted.trust_remote_code)
    grow_model(model, tokenizer, wanted.new_tokens, wanted.vocab_multiple, location)
    with temporary_folder(artifacts.bases, "grown") as staging:
        inner = staging / "model"
        model.save_pretrained(inner)
        copy_tokenizer_files(tokenizer.folder, inner)
        keep(inner, grown)
    return grown


def grown_rows(vocab_size: int, rows: int, multiple: int) -> int:
    """Rows of an embedding that had ``rows``, once it has one for each of ``vocab_size`` ids."""
    return max(rows, -(-vocab_size // multiple) * multiple)


def grow_model(model: PreTrainedModel, tokenizer: TokenizerInfo, start: str, multiple: int, name: str) -> None:
    """Add the rows, in place: embedding [V, H] and head [V, H], tied or not, and the head's bias.

    A new token's row is the mean of the rows of the old tokens that its text was written in (FVT, arXiv 2305.14480; on
    par with more elaborate ones, 2407.05841). Rows that only fill up are the mean of all.

    Args:
        model: changed.
        tokenizer: whose ids from ``grown_from`` on are new.
        start: "mean"; or "first": a head with weights of its own gets the row of the first old token.
        multiple: number of rows is filled up to it.
        name: of the base, for errors.

    Raises:
        ModelError: the base has fewer rows than its tokenizer has entries, or no embedding that can grow.
    """
    assert tokenizer.grown_from is not None
    first, rows = tokenizer.grown_from, embedding_rows(model)
    check_vocabulary(first, rows, name)
    tied = model.get_output_embeddings() is None or _weight(model.get_output_embeddings()) is _weight(
        model.get_input_embeddings()
    )
    try:
        model.resize_token_embeddings(grown_rows(tokenizer.vocab_size, rows, multiple), mean_resizing=False)
    except (NotImplementedError, ValueError, AttributeError) as error:
        raise ModelError(
            f"The embedding of {name} can't grow: {error}.", "Prepare again without --extend-vocab."
        ) from error
    pieces = pieces_of(tokenizer.folder, first)
    _fill(_weight(model.get_input_embeddings()), first, pieces)
    if not tied:
        head: Any = model.get_output_embeddings()
        _fill(_weight(head), first, [ids[:1] for ids in pieces] if start == "first" else pieces)
        if getattr(head, "bias", None) is not None:
            _fill(head.bias.data, first, pieces)


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight


@torch.no_grad()
def _fill(weight: Tensor, first: int, pieces: list[list[int]]) -> None:
    """Write the rows of ``weight`` from ``first`` on."""
    old = weight[:first].float()
    weight[first:] = old.mean(0).to(weight.dtype)
    for row, ids in enumerate(pieces, first):
        weight[row] = old[ids].mean(0).to(weight.dtype)
