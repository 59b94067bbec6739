"""Accounts for every document, byte and token of a prepare; each sum is checked before it is written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import TaskCounts
from pretrain_cli.data.rows.assembly import RowSettings, SplitCounts
from pretrain_cli.manifest import (
    ByteLedger,
    DocumentLedger,
    Ledger,
    SourceRecord,
    SplitRecord,
    Statistics,
    TokenLedger,
    Unwritable,
)

LISTED = 100
"""Documents named in the ledger at most, of each split."""
DROPPED_AFTER_ENCODING = {"duplicate", "near_duplicate", "weight"}


def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Counts by reason, summed."""
    merged: dict[str, int] = {}
    for each in counts:
        for reason, number in each.items():
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
) -> Ledger:
    """The ledger: documents, bytes (of UTF-8 text) and tokens, each adding up.

    Raises:
        AssertionError: they don't, which is a bug.
    """
    return Ledger(
        documents=_document_ledger(counts, selection),
        bytes=_byte_ledger(counts, table, selection),
        tokens=_token_ledger(table, selection, train, validation, rows),
        padding=(train.rows + validation.rows) * rows.sequence_length - train.tokens - validation.tokens,
        repeated_documents=selection.repeated_documents,
        unwritable=_unwritable(table["lost_bytes"], selection),
    )


def _document_ledger(counts: list[TaskCounts], selection: Selection) -> DocumentLedger:
    read = sum(count.documents_in for count in counts)
    dropped = dropped_documents(counts, selection)
    kept = sum(count.kept_documents for count in counts) - sum(int(which.sum()) for which in selection.dropped.values())
    assert read == kept + sum(dropped.values()), "the ledger of documents doesn't add up"
    return DocumentLedger(read=read, kept=kept, dropped=dropped)


def _byte_ledger(counts: list[TaskCounts], table: npt.NDArray[np.void], selection: Selection) -> ByteLedger:
    later = {reason: int(table["bytes"][which].sum()) for reason, which in selection.dropped.items() if which.any()}
    read = sum(count.bytes_in for count in counts)
    dropped = merge([*(count.dropped_bytes for count in counts), later])
    kept = sum(count.kept_bytes for count in counts) - sum(later.values())
    changed = sum(count.changed_bytes for count in counts)
    assert read == kept + sum(dropped.values()) + changed, "the ledger of bytes doesn't add up"
    return ByteLedger(read=read, kept=kept, dropped=dropped, changed_by_cleaning=changed)


def _token_ledger(
    table: npt.NDArray[np.void], selection: Selection, train: SplitCounts, validation: SplitCounts, rows: RowSettings
) -> TokenLedger:
    encoded = int(table["tokens"].sum())
    marks = rows.marks_per_document * (len(selection.train.documents) + len(selection.validation.documents))
    made = encoded + marks + selection.repeated_tokens
    dropped = {reason: int(table["tokens"][which].sum()) for reason, which in selection.dropped.items() if which.any()}
    for name, split in (("train", train), ("validation", validation)):
        if split.tail:
            dropped[f"{name}_tail"] = split.tail
    assert made == train.tokens + validation.tokens + sum(dropped.values()), "the ledger of tokens doesn't add up"
    return TokenLedger(
        encoded=encoded,
        marks=marks,
        repeated=selection.repeated_tokens,
        made=made,
        train=train.tokens,
        validation=validation.tokens,
        dropped=dropped,
    )


def _unwritable(lost: npt.NDArray[np.int64], selection: Selection) -> Unwritable:
    """Bytes without a token: how many, in how many documents, and which are the first of those that were kept."""
    by_document: dict[str, int] = {}
    for part in (selection.train, selection.validation):
        own = np.flatnonzero(lost[part.rows])[:LISTED]
        by_document |= {str(part.documents[entry]): int(lost[part.rows[entry]]) for entry in own}
    return Unwritable(documents=int((lost > 0).sum()), bytes=int(lost.sum()), by_document=by_document)


def split_record(counts: SplitCounts, size: int) -> SplitRecord:
    """What a split holds; ``size`` in bytes of text."""
    return SplitRecord(rows=counts.rows, tokens=counts.tokens, documents=counts.documents, bytes=size)


def source_record(source: int, table: npt.NDArray[np.void], selection: Selection) -> SourceRecord:
    """What a source gives to train on, and how much of it is held out. A document taken twice counts twice.

    Of a document whose tail is held out, the bytes are shared by its tokens.
    """
    counts: dict[str, int] = {}
    for prefix, part in (("", selection.train), ("validation_", selection.validation)):
        own = part.sources == source
        rows, first, tokens = part.rows[own], part.first[own], part.tokens[own]
        all_tokens, bytes_ = np.maximum(table["tokens"][rows], 1), table["bytes"][rows]
        size = bytes_ * (first + tokens) // all_tokens - bytes_ * first // all_tokens
        counts |= {
            f"{prefix}documents": len(rows),
            f"{prefix}tokens": int(tokens.sum()),
            f"{prefix}bytes": int(size.sum()),
        }
    return SourceRecord(**counts)


def make_statistics(
    ledger: Ledger, selection: Selection, train: SplitCounts, validation: SplitCounts, rows: RowSettings
) -> Statistics:
    """Figures of all rows. A document whose tail is held out is in ``document_tokens`` twice."""
    lengths: dict[int, int] = {}
    for part in (selection.train, selection.validation):
        powers = np.ceil(np.log2(np.maximum(part.tokens + rows.marks_per_document, 1))).astype(np.int64)
        for power, many in enumerate(np.bincount(powers).tolist()):
            if many:
                lengths[1 << power] = lengths.get(1 << power, 0) + many
    tokens, places = train.tokens + validation.tokens, (train.rows + validation.rows) * rows.sequence_length
    return Statistics(
        fill=tokens / max(1, places),
        bytes_per_token=_encoded_bytes(ledger.bytes) / max(1, ledger.tokens.encoded),
        pieces_per_row=(train.pieces + validation.pieces) / max(1, train.rows + validation.rows),
        document_tokens={str(limit): lengths[limit] for limit in sorted(lengths)},
    )


def _encoded_bytes(ledger: ByteLedger) -> int:
    """Bytes that gave tokens: all but those dropped or changed before they were encoded."""
    before = sum(size for reason, size in ledger.dropped.items() if reason not in DROPPED_AFTER_ENCODING)
    return ledger.read - before - ledger.changed_by_cleaning
