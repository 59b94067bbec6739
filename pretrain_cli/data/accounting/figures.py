"""Summarizes the prepared rows by split, by source, and as a whole."""

from __future__ import annotations

import numpy as np

from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.rows.assembly import SplitCounts
from pretrain_cli.manifest import ByteLedger, Ledger, SourceRecord, SplitRecord, Statistics

DROPPED_AFTER_ENCODING = {"duplicate", "near_duplicate", "weight"}


def split_record(counts: SplitCounts, size: int) -> SplitRecord:
    """What a split holds; ``size`` in bytes of text."""
    return SplitRecord(rows=counts.rows, tokens=counts.tokens, documents=counts.documents, bytes=size)


def source_record(source: int, text: PackedText) -> SourceRecord:
    """What a source gives to train on, and how much of it is held out. A document taken twice counts twice.

    Of a document whose tail is held out, the bytes are shared by its tokens.
    """
    table = text.encoded.table
    counts: dict[str, int] = {}
    for prefix, ranges in (("", text.selection.train), ("validation_", text.selection.validation)):
        own = ranges.sources == source
        entries, first, tokens = ranges.entries[own], ranges.first[own], ranges.tokens[own]
        all_tokens, all_bytes = np.maximum(table["tokens"][entries], 1), table["bytes"][entries]
        size = all_bytes * (first + tokens) // all_tokens - all_bytes * first // all_tokens
        counts |= {
            f"{prefix}documents": len(entries),
            f"{prefix}tokens": int(tokens.sum()),
            f"{prefix}bytes": int(size.sum()),
        }
    return SourceRecord(**counts)


def make_statistics(ledger: Ledger, text: PackedText) -> Statistics:
    """Figures of all rows. A document whose tail is held out is in ``document_tokens`` twice."""
    lengths: dict[int, int] = {}
    for ranges in (text.selection.train, text.selection.validation):
        powers = np.ceil(np.log2(np.maximum(ranges.tokens + text.rows.border_tokens, 1))).astype(np.int64)
        for power, many in enumerate(np.bincount(powers).tolist()):
            if many:
                lengths[1 << power] = lengths.get(1 << power, 0) + many
    return Statistics(
        fill=text.tokens / max(1, text.places),
        bytes_per_token=_encoded_bytes(ledger.bytes) / max(1, ledger.tokens.encoded),
        pieces_per_row=(text.train.pieces + text.validation.pieces) / max(1, text.train.rows + text.validation.rows),
        document_tokens={str(limit): lengths[limit] for limit in sorted(lengths)},
    )


def _encoded_bytes(ledger: ByteLedger) -> int:
    """Bytes that gave tokens: all but those dropped or changed before they were encoded."""
    before = sum(size for reason, size in ledger.dropped.items() if reason not in DROPPED_AFTER_ENCODING)
    return ledger.read - before - ledger.changed_by_cleaning
