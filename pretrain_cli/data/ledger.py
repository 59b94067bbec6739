"""Where did every byte and every token go? In = kept + dropped by reason, checked before it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import TaskCounts
from pretrain_cli.data.rows.assembly import RowSettings, SplitCounts

LISTED = 100
"""Documents named in the ledger at most, of each split."""


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
        "unwritable": _unwritable(table["lost_bytes"], selection),
    }


def _unwritable(lost: npt.NDArray[np.int64], selection: Selection) -> dict[str, Any]:
    """Bytes without a token: how many, in how many documents, and which are the first of those that were kept."""
    by_document: dict[str, int] = {}
    for part in (selection.train, selection.validation):
        own = np.flatnonzero(lost[part.rows])[:LISTED]
        by_document |= {str(part.documents[entry]): int(lost[part.rows[entry]]) for entry in own}
    return {"documents": int((lost > 0).sum()), "bytes": int(lost.sum()), "by_document": by_document}


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
        rows, first, tokens = part.rows[own], part.first[own], part.tokens[own]
        whole, bytes_ = np.maximum(table["tokens"][rows], 1), table["bytes"][rows]
        size = bytes_ * (first + tokens) // whole - bytes_ * first // whole
        counts |= {
            f"{prefix}documents": len(rows),
            f"{prefix}tokens": int(tokens.sum()),
            f"{prefix}bytes": int(size.sum()),
        }
    return counts


def statistics(
    ledger: dict[str, Any], selection: Selection, train: SplitCounts, validation: SplitCounts, rows: RowSettings
) -> dict[str, Any]:
    """Numbers of the whole beside the counts: fill, bytes per token, pieces in a row, lengths.

    ``document_tokens``: documents by the next power of two of their tokens, BOS and EOS counted; a document whose tail
    is held out is in it twice.
    """
    extra = (rows.bos is not None) + (rows.eos is not None)
    lengths: dict[int, int] = {}
    for part in (selection.train, selection.validation):
        powers = np.ceil(np.log2(np.maximum(part.tokens + extra, 1))).astype(np.int64)
        for power, many in enumerate(np.bincount(powers).tolist()):
            if many:
                lengths[1 << power] = lengths.get(1 << power, 0) + many
    tokens, places = train.tokens + validation.tokens, (train.rows + validation.rows) * rows.sequence_length
    encoded = ledger["bytes"]["in"] - _unencoded(ledger)
    return {
        "fill": tokens / max(1, places),
        "bytes_per_token": encoded / max(1, ledger["tokens"]["encoded"]),
        "pieces_per_row": (train.pieces + validation.pieces) / max(1, train.rows + validation.rows),
        "document_tokens": {str(limit): lengths[limit] for limit in sorted(lengths)},
    }


def _unencoded(ledger: dict[str, Any]) -> int:
    """Bytes dropped before they were encoded: those of documents dropped later did give tokens."""
    late = {"duplicate", "near_duplicate", "weight"}
    early = sum(size for reason, size in ledger["bytes"]["dropped"].items() if reason not in late)
    return int(early + ledger["bytes"]["changed_by_cleaning"])
