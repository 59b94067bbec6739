"""Defines the columns of packed rows, in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PIECE_TYPES = {
    "piece_lengths": pa.int32(),
    "piece_documents": pa.int64(),
    "piece_starts": pa.int64(),
    "piece_sources": pa.int16(),
}


@dataclass
class PackedBatch:
    """Rows ready to write.

    ``input_ids``: [rows, L]; ``counts``: pieces in each row; the piece columns: one entry a piece, in row order.
    """

    input_ids: npt.NDArray[np.unsignedinteger]
    counts: npt.NDArray[np.int64]
    piece_lengths: npt.NDArray[np.int32]
    piece_documents: npt.NDArray[np.int64]
    piece_starts: npt.NDArray[np.int64]
    piece_sources: npt.NDArray[np.int16]


def row_schema(sequence_length: int, dtype: npt.DTypeLike) -> pa.Schema:
    """pyarrow's schema, with what ``datasets`` needs to open the rows."""
    ids = pa.list_(pa.field("item", pa.from_numpy_dtype(dtype)), sequence_length)
    fields = [pa.field("input_ids", ids), *(pa.field(name, pa.list_(kind)) for name, kind in PIECE_TYPES.items())]
    features = row_features(sequence_length, np.dtype(dtype).name)
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def row_features(sequence_length: int, dtype: str) -> dict[str, dict[str, object]]:
    """The columns as ``datasets`` describes them."""

    def many(kind: str, length: int = -1) -> dict[str, object]:
        return {"feature": {"dtype": kind, "_type": "Value"}, "length": length, "_type": "List"}

    return {"input_ids": many(dtype, sequence_length)} | {name: many(str(kind)) for name, kind in PIECE_TYPES.items()}
