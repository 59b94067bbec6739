"""Where did every byte and every token go? In = kept + dropped by reason, checked before it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.assemble import RowSettings, SplitCounts
from pretrain_cli.data.select import Selection
from pretrain_cli.data.shard import TaskCounts


def merge(parts: list[dict[str, int]]) -> dict[str, int]:
    """Counts by reason, summed."""
    merged: dict[str, int] = {}
    for part in parts:
        for reason, number in part.items():
            merged[reason] = merged.get(reason, 0) + number
    return merged


def dropped_documents(counts: list[TaskCounts], selection: Selection) -> dict[str, int]:
    """Documents left out, by reason, while reading and after."""
    later = {reason: int(which.sum()) for reason, which in selection.dropped.items() if which.any()}
    return merge([*(count.dropped_documents for count in counts), later])


def make_ledger(
    counts: list[TaskCounts],
    table: npt.NDArray[np.void],
    selection: Selection,
    train: SplitCounts,
    validation: SplitCounts,
    rows: RowSettings,
) -> dict[str, Any]:
    """The ledger: documents, bytes (of UTF-8 text) and tokens, each adding up.

    Raises:
        AssertionError: they don't, which is a bug.
    """
    chosen = {reason: which for reason, which in selection.dropped.items() if which.any()}
    later_bytes = {reason: int(table["bytes"][which].sum()) for reason, which in chosen.items()}
    bytes_in = sum(count.bytes_in for count in counts)
    dropped_bytes = merge([*(count.dropped_bytes for count in counts), later_bytes])
    kept_bytes = sum(count.kept_bytes for count in counts) - sum(later_bytes.values())
    changed = sum(count.changed_bytes for count in counts)
    assert bytes_in == kept_bytes + sum(dropped_bytes.values()) + changed, "the ledger of bytes doesn't add up"
    documents_in = sum(count.documents_in for count in counts)
    dropped = dropped_documents(counts, selection)
    kept = sum(count.kept_documents for count in counts) - sum(int(which.sum()) for which in chosen.values())
    assert documents_in == kept + sum(dropped.values()), "the ledger of documents doesn't add up"
    extra = (rows.bos is not None) + (rows.eos is not None)
    encoded = int(table["tokens"].sum())
    marks = extra * (len(selection.train.documents) + len(selection.validation.documents))
    made = encoded + marks + selection.repeated_tokens
    dropped_tokens = {reason: int(table["tokens"][which].sum()) for reason, which in chosen.items()}
    for name, split in (("train", train), ("validation", validation)):
        if split.tail:
            dropped_tokens[f"{name}_tail"] = split.tail
    assert made == train.tokens + validation.tokens + sum(dropped_tokens.values()), "the tokens don't add up"
    return {
        "documents": {"in": documents_in, "kept": kept, "dropped": dropped},
        "bytes": {"in": bytes_in, "kept": kept_bytes, "dropped": dropped_bytes, "changed_by_cleaning": changed},
        "tokens": {
            "encoded": encoded,
            "marks": marks,
            "repeated": selection.repeated_tokens,
            "made": made,
            "train": train.tokens,
            "validation": validation.tokens,
            "dropped": dropped_tokens,
        },
        "padding": (train.rows + validation.rows) * rows.sequence_length - train.tokens - validation.tokens,
        "repeated_documents": selection.repeated_documents,
        "unwritable": {
            "documents": int((table["lost_bytes"] > 0).sum()),
            "bytes": int(table["lost_bytes"].sum()),
        },
    }


def summary(
    ledger: dict[str, Any],
    table: npt.NDArray[np.void],
    selection: Selection,
    train: SplitCounts,
    validation: SplitCounts,
    names: list[str],
) -> dict[str, Any]:
    """The manifest's counts by split and by source."""
    held = selection.validation_bytes
    return {
        "train": {
            "rows": train.rows,
            "tokens": train.tokens,
            "documents": train.documents,
            "bytes": ledger["bytes"]["kept"] - held,
        },
        "validation": {
            "rows": validation.rows,
            "tokens": validation.tokens,
            "documents": validation.documents,
            "bytes": held,
        },
        "sources": {name: _source(index, table, selection) for index, name in enumerate(names)},
    }


def _source(index: int, table: npt.NDArray[np.void], selection: Selection) -> dict[str, int]:
    """What a source gives to train on, and how much of it is held out. A document taken twice counts twice.

    Of a document whose tail is held out, the bytes are shared by its tokens.
    """
    counts: dict[str, int] = {}
    for prefix, part in (("", selection.train), ("validation_", selection.validation)):
        own = part.sources == index
        rows, tokens = part.rows[own], part.tokens[own]
        whole = table["tokens"][rows]
        size = np.where(tokens == whole, table["bytes"][rows], table["bytes"][rows] * tokens // np.maximum(whole, 1))
        counts |= {
            f"{prefix}documents": len(rows),
            f"{prefix}tokens": int(tokens.sum()),
            f"{prefix}bytes": int(size.sum()),
        }
    return counts
