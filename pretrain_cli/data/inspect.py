"""What is in the prepared rows? Rows decoded with their borders, and the numbers of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.store import open_rows
from pretrain_cli.errors import UsageError


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
    """The numbers of the prepared data as plain JSON values.

    Keys: documents, bytes, tokens, bytes_per_token, fill, sequence_length, packing, tokenizer, train, validation,
    sources, dropped, rejected, duplicates, pieces_per_row, document_tokens (a histogram by powers of two: upper bound
    to count).

    Raises:
        DataError: nothing is prepared.
    """
    manifest = artifacts.read_manifest()
    ledger, settings = manifest["ledger"], manifest["settings"]
    rows = manifest["train"]["rows"] + manifest["validation"]["rows"]
    tokens = ledger["tokens"]["train"] + ledger["tokens"]["validation"]
    lengths: dict[str, int] = {}
    counts = []
    for folder in (artifacts.train_rows, artifacts.validation_rows):
        opened = open_rows(folder)
        counts.append(opened.counts())
        documents = opened.column("piece_documents")
        if not len(documents):
            continue
        sizes = np.bincount(documents, opened.column("piece_lengths")).astype(np.int64)
        powers = np.ceil(np.log2(np.maximum(sizes[sizes > 0], 1))).astype(int)
        for power, number in zip(*np.unique(powers, return_counts=True), strict=True):
            lengths[str(2 ** int(power))] = lengths.get(str(2 ** int(power)), 0) + int(number)
    pieces = np.concatenate(counts)
    encoded = ledger["tokens"]["encoded"]
    return {
        "documents": ledger["documents"]["kept"],
        "bytes": ledger["bytes"]["kept"],
        "tokens": tokens,
        "bytes_per_token": (ledger["bytes"]["in"] - _unencoded(ledger)) / max(1, encoded),
        "fill": tokens / max(1, rows * settings["sequence_length"]),
        "sequence_length": settings["sequence_length"],
        "packing": settings["packing"],
        "tokenizer": manifest["tokenizer"],
        "train": manifest["train"],
        "validation": manifest["validation"],
        "sources": manifest["sources"],
        "dropped": ledger["documents"]["dropped"],
        "rejected": sum(1 for _ in open(artifacts.rejected, "rb")) if artifacts.rejected.is_file() else 0,
        "duplicates": ledger["documents"]["dropped"].get("duplicate", 0),
        "pieces_per_row": float(pieces.mean()) if len(pieces) else 0.0,
        "document_tokens": dict(sorted(lengths.items(), key=lambda entry: int(entry[0]))),
    }


def _unencoded(ledger: dict[str, Any]) -> int:
    """Bytes dropped before they were encoded: those of documents dropped later did give tokens."""
    late = {"duplicate", "near_duplicate", "weight"}
    early = sum(size for reason, size in ledger["bytes"]["dropped"].items() if reason not in late)
    return int(early + ledger["bytes"]["changed_by_cleaning"])
