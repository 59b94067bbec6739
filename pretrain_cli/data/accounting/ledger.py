"""Accounts for every document, byte and token of a prepare; each sum is checked before it is written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.manifest import ByteLedger, DocumentLedger, Ledger, TokenLedger, Unwritable

LISTED = 100
"""Documents named in the ledger at most, of each split."""


def add_up(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by reason, summed."""
    total: dict[str, int] = {}
    for each in counts:
        for reason, number in each.items():
            total[reason] = total.get(reason, 0) + number
    return total


def dropped_documents(counts: list[ShardCounts], selection: Selection) -> dict[str, int]:
    """Documents left out, by reason, while reading and after."""
    later = {reason: int(which.sum()) for reason, which in selection.dropped.items() if which.any()}
    return add_up([*(count.dropped_documents for count in counts), later])


def make_ledger(text: PackedText) -> Ledger:
    """The ledger: documents, bytes (of UTF-8 text) and tokens, each adding up.

    Raises:
        AssertionError: they don't, which is a bug.
    """
    return Ledger(
        documents=_document_ledger(text),
        bytes=_byte_ledger(text),
        tokens=_token_ledger(text),
        padding=text.places - text.tokens,
        repeated_documents=text.selection.repeated_documents,
        unwritable=_unwritable(text.encoded.table["lost_bytes"], text.selection),
    )


def _document_ledger(text: PackedText) -> DocumentLedger:
    read = sum(count.documents_in for count in text.counts)
    dropped = dropped_documents(text.counts, text.selection)
    later = sum(int(which.sum()) for which in text.selection.dropped.values())
    kept = sum(count.kept_documents for count in text.counts) - later
    assert read == kept + sum(dropped.values()), "the ledger of documents doesn't add up"
    return DocumentLedger(read=read, kept=kept, dropped=dropped)


def _byte_ledger(text: PackedText) -> ByteLedger:
    later = _dropped_sums(text, "bytes")
    read = sum(count.bytes_in for count in text.counts)
    dropped = add_up([*(count.dropped_bytes for count in text.counts), later])
    kept = sum(count.kept_bytes for count in text.counts) - sum(later.values())
    changed = sum(count.changed_bytes for count in text.counts)
    assert read == kept + sum(dropped.values()) + changed, "the ledger of bytes doesn't add up"
    return ByteLedger(read=read, kept=kept, dropped=dropped, changed_by_cleaning=changed)


def _token_ledger(text: PackedText) -> TokenLedger:
    selection, train, validation = text.selection, text.train, text.validation
    encoded = int(text.encoded.table["tokens"].sum())
    borders = text.rows.border_tokens * (len(selection.train.documents) + len(selection.validation.documents))
    made = encoded + borders + selection.repeated_tokens
    dropped = _dropped_sums(text, "tokens")
    for name, split in (("train", train), ("validation", validation)):
        if split.tail:
            dropped[f"{name}_tail"] = split.tail
    assert made == train.tokens + validation.tokens + sum(dropped.values()), "the ledger of tokens doesn't add up"
    return TokenLedger(
        encoded=encoded,
        marks=borders,
        repeated=selection.repeated_tokens,
        made=made,
        train=train.tokens,
        validation=validation.tokens,
        dropped=dropped,
    )


def _dropped_sums(text: PackedText, column: str) -> dict[str, int]:
    """A column's sum over the documents dropped after encoding, by reason."""
    table = text.encoded.table
    return {reason: int(table[column][which].sum()) for reason, which in text.selection.dropped.items() if which.any()}


def _unwritable(lost: npt.NDArray[np.int64], selection: Selection) -> Unwritable:
    """Bytes without a token: how many, in how many documents, and which are the first of those that were kept."""
    by_document: dict[str, int] = {}
    for ranges in (selection.train, selection.validation):
        own = np.flatnonzero(lost[ranges.entries])[:LISTED]
        by_document |= {str(ranges.documents[place]): int(lost[ranges.entries[place]]) for place in own}
    return Unwritable(documents=int((lost > 0).sum()), bytes=int(lost.sum()), by_document=by_document)
