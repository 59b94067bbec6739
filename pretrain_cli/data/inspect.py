"""Shows the prepared rows: one decoded, with the borders of its documents, or the figures of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.input_list import files_of
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.errors import UsageError
from pretrain_cli.manifest import check_still, read_manifest
from pretrain_cli.manifest_records import SourceRecord, SplitRecord, TokenizerRecord
from pretrain_cli.records import Record


@dataclass(frozen=True)
class TokenView:
    """A token: its id, and the text it stands for (control characters as they are)."""

    id: int
    text: str


@dataclass(frozen=True)
class PieceView:
    """A document's piece in a row: ``start``: tokens of the document before it; ``file``: that the document is from."""

    document: int
    source: str
    start: int
    text: str
    tokens: list[TokenView]
    file: str = ""


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
    """Row ``index`` of a split, or with ``index=None`` one drawn by ``seed`` (None: a different one each time).

    Raises:
        DataError: nothing is prepared.
        UsageError: the split has no such row.
    """
    from tokenizers import Tokenizer

    manifest = read_manifest(artifacts)
    names = list(manifest.sources)
    rows = open_rows(artifacts.data / split)
    check_still(artifacts, manifest)
    if not len(rows):
        raise UsageError(f"The {split} split has no rows.", "Choose the other split.")
    if index is None:
        index = int(np.random.default_rng(seed).integers(len(rows)))
    if not 0 <= index < len(rows):
        raise UsageError(f"There is no row {index:,}.", f"The {split} split has rows 0 to {len(rows) - 1:,}.")
    tokenizer = Tokenizer.from_file(str(artifacts.tokenizer / "tokenizer.json"))
    ids = rows.input_ids[index].tolist()
    pieces, at = [], 0
    columns = [rows.pieces(index, f"piece_{name}").tolist() for name in ("lengths", "documents", "starts", "sources")]
    files = files_of(artifacts.input_list, columns[1])
    for length, document, start, source, file in zip(*columns, files, strict=True):
        own = ids[at : at + length]
        tokens = [TokenView(token, tokenizer.decode([token], skip_special_tokens=False)) for token in own]
        text = tokenizer.decode(own, skip_special_tokens=False)
        pieces.append(PieceView(document, names[source], start, text, tokens, file))
        at += length
    return RowView(split, index, pieces, len(ids) - at)


class PreparedFigures(Record):
    """The figures of the prepared data, out of the manifest; see there for what each counts.

    ``dropped`` and ``rejected``: documents by reason. ``duplicates`` of ``dropped`` are whole texts seen before.
    """

    documents: int
    bytes: int
    tokens: int
    sequence_length: int
    packing: str
    tokenizer: TokenizerRecord
    train: SplitRecord
    validation: SplitRecord
    sources: dict[str, SourceRecord]
    dropped: dict[str, int]
    rejected: dict[str, int]
    duplicates: int
    padding: int
    fill: float
    bytes_per_token: float
    pieces_per_row: float
    document_tokens: dict[str, int]


def read_figures(artifacts: Artifacts) -> PreparedFigures:
    """The figures of the prepared data.

    Raises:
        DataError: nothing is prepared, or an older version prepared it.
    """
    manifest = read_manifest(artifacts)
    ledger, statistics = manifest.ledger, manifest.statistics
    return PreparedFigures(
        documents=ledger.documents.kept,
        bytes=ledger.bytes.kept,
        tokens=ledger.tokens.train + ledger.tokens.validation,
        sequence_length=manifest.settings.sequence_length,
        packing=manifest.settings.packing,
        tokenizer=manifest.tokenizer,
        train=manifest.train,
        validation=manifest.validation,
        sources=manifest.sources,
        dropped=ledger.documents.dropped,
        rejected=manifest.rejected,
        duplicates=ledger.documents.dropped.get("duplicate", 0),
        padding=ledger.padding,
        fill=statistics.fill,
        bytes_per_token=statistics.bytes_per_token,
        pieces_per_row=statistics.pieces_per_row,
        document_tokens=statistics.document_tokens,
    )
