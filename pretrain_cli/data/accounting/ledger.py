"""Accounts for every document, byte and token of a prepare; each sum is checked before it is written."""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.manifest_records import ByteLedger, DocumentLedger, Ledger, TokenLedger


def add_up(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by reason, summed."""
    total: dict[str, int] = {}
    for each in counts:
        for reason, number in each.items():
            total[reason] = total.get(reason, 0) + number
    return total


def dropped_documents(counts: list[ShardCounts], selection: Selection) -> dict[str, int]:
    """Documents left out, by reason, while reading and after."""
    later = {reason: left.documents for reason, left in selection.dropped.items()}
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
        repeated_documents=text.selection.repeated.documents,
        unwritable=text.figures.unwritable,
    )


def _document_ledger(text: PackedText) -> DocumentLedger:
    read = sum(count.documents_in for count in text.counts)
    dropped = dropped_documents(text.counts, text.selection)
    later = sum(left.documents for left in text.selection.dropped.values())
    kept = sum(count.kept_documents for count in text.counts) - later
    assert read == kept + sum(dropped.values()), "the ledger of documents doesn't add up"
    return DocumentLedger(read=read, kept=kept, dropped=dropped)


def _byte_ledger(text: PackedText) -> ByteLedger:
    later = {reason: left.bytes for reason, left in text.selection.dropped.items()}
    read = sum(count.bytes_in for count in text.counts)
    dropped = add_up([*(count.dropped_bytes for count in text.counts), later])
    kept = sum(count.kept_bytes for count in text.counts) - sum(later.values())
    changed = sum(count.changed_bytes for count in text.counts)
    assert read == kept + sum(dropped.values()) + changed, "the ledger of bytes doesn't add up"
    return ByteLedger(read=read, kept=kept, dropped=dropped, changed_by_cleaning=changed)


def _token_ledger(text: PackedText) -> TokenLedger:
    selection, train, validation = text.selection, text.train, text.validation
    encoded = sum(count.tokens for count in text.counts)
    borders = train.marks + validation.marks
    made = encoded + borders + selection.repeated.tokens + text.rearranged
    dropped = {reason: left.tokens for reason, left in selection.dropped.items()}
    for name, split in (("train", train), ("validation", validation)):
        if split.tail:
            dropped[f"{name}_tail"] = split.tail
    assert made == train.tokens + validation.tokens + sum(dropped.values()), "the ledger of tokens doesn't add up"
    return TokenLedger(
        encoded=encoded,
        marks=borders,
        repeated=selection.repeated.tokens,
        rearranged=text.rearranged,
        made=made,
        train=train.tokens,
        validation=validation.tokens,
        dropped=dropped,
    )
