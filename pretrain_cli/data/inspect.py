"""What is in the prepared rows? Rows decoded with their borders, and the numbers of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.rows.store import open_rows
from pretrain_cli.errors import DataError, UsageError


@dataclass(frozen=True)
class TokenView:
    """A token: its id, and the text it stands for (control characters as they are)."""

    id: int
    text: str


@dataclass(frozen=True)
class PieceView:
    """A document's piece in a row: ``start`` is its first token's place in the document."""

    document: int
    source: str
    start: int
    text: str
    tokens: list[TokenView]


@dataclass(frozen=True)
class RowView:
    """One row, decoded. ``padding`` in tokens."""

    split: str
    index: int
    pieces: list[PieceView]
    padding: int


def inspect_row(
    artifacts: Artifacts, index: int | None = None, split: str = "train", seed: int | None = None
) -> RowView:
    """Row ``index`` of a split, or with ``index=None`` one drawn by ``seed`` (None: another every time).

    Raises:
        DataError: nothing is prepared.
        UsageError: there is no such row.
    """
    from tokenizers import Tokenizer

    manifest = artifacts.read_manifest()
    rows = open_rows(artifacts.data / split)
    if not len(rows):
        raise UsageError(f"The {split} split has no rows.", "Choose the other split.")
    if index is None:
        index = int(np.random.default_rng(seed).integers(len(rows)))
    if not 0 <= index < len(rows):
        raise UsageError(f"There is no row {index}.", f"The {split} split has rows 0 to {len(rows) - 1}.")
    tokenizer: Any = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    names = list(manifest["sources"])
    ids = rows.input_ids[index].tolist()
    pieces, at = [], 0
    columns = (rows.pieces(index, f"piece_{name}").tolist() for name in ("lengths", "documents", "starts", "sources"))
    for length, document, start, source in zip(*columns, strict=True):
        own = ids[at : at + length]
        tokens = [TokenView(token, tokenizer.decode([token], skip_special_tokens=False)) for token in own]
        text = tokenizer.decode(own, skip_special_tokens=False)
        pieces.append(PieceView(document, names[source], start, text, tokens))
        at += length
    return RowView(split, index, pieces, len(ids) - at)


def statistics(artifacts: Artifacts) -> dict[str, Any]:
    """The numbers of the prepared data as plain JSON values, out of the manifest.

    Keys: documents, bytes, tokens, bytes_per_token, fill, padding, sequence_length, packing, tokenizer, train,
    validation, sources, dropped, rejected (by reason), duplicates, pieces_per_row, document_tokens (a histogram by
    powers of two: upper bound to count).

    Raises:
        DataError: nothing is prepared, or by an older version.
    """
    manifest = artifacts.read_manifest()
    if "statistics" not in manifest:
        raise DataError("An older version prepared this data.", "Make it again: ptk prepare")
    ledger, settings = manifest["ledger"], manifest["settings"]
    return {
        "documents": ledger["documents"]["kept"],
        "bytes": ledger["bytes"]["kept"],
        "tokens": ledger["tokens"]["train"] + ledger["tokens"]["validation"],
        "sequence_length": settings["sequence_length"],
        "packing": settings["packing"],
        "tokenizer": manifest["tokenizer"],
        "train": manifest["train"],
        "validation": manifest["validation"],
        "sources": manifest["sources"],
        "dropped": ledger["documents"]["dropped"],
        "rejected": manifest["rejected"],
        "duplicates": ledger["documents"]["dropped"].get("duplicate", 0),
        "padding": ledger["padding"],
        **manifest["statistics"],
    }
