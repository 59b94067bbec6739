"""Puts the documents of a split back together from their pieces in the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.rows.reader import open_rows


@dataclass(frozen=True)
class StoredDocument:
    """A document as it was prepared; ids (uint16 or uint32 [n]) include its BOS and EOS."""

    index: int
    source: int
    ids: npt.NDArray[np.integer]


def iterate_documents(folder: Path) -> Iterator[StoredDocument]:
    """A split's documents, put back together from their pieces, in index order."""
    rows = open_rows(folder)
    counts, lengths = rows.counts(), rows.column("piece_lengths").astype(np.int64)
    documents, starts, sources = (rows.column(f"piece_{name}") for name in ("documents", "starts", "sources"))
    row_of = np.repeat(np.arange(len(rows)), counts)
    ends = np.cumsum(lengths)
    row_base = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])[:-1]] if len(rows) else ends
    column_of = ends - lengths - np.repeat(row_base, counts)
    order = np.lexsort((starts, documents))
    borders = np.flatnonzero(np.diff(documents[order])) + 1
    for group in np.split(order, borders) if len(order) else []:
        pieces = []
        for piece in group:
            start = column_of[piece]
            pieces.append(rows.input_ids[int(row_of[piece])][start : start + lengths[piece]])
        yield StoredDocument(int(documents[group[0]]), int(sources[group[0]]), np.concatenate(pieces))
