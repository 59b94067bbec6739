"""Puts the two splits together by the rules of `split.py`, from the table of all encoded documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.split import choose_split, copies, first_seen, hold_out
from pretrain_cli.data.choosing.tail import cut_tails
from pretrain_cli.data.cleaning.near_duplicates import near_duplicates
from pretrain_cli.data.encoding.encoded import EncodedDocuments, Ints
from pretrain_cli.tokenizer.load import TokenizerInfo


@dataclass(frozen=True)
class Selection:
    """The splits, and what is left out after encoding.

    Attributes:
        train, validation: what the splits are made of.
        dropped: reason → which of all encoded documents it leaves out [n].
        repeated_documents, repeated_tokens: copies that the sources' weights ask for.
        validation_sizes: bytes of each entry of ``validation``.
        kept: bytes of each of all encoded documents, 0 of those left out [n].
        split: how it was chosen, ``spread``, ``hash`` or ``tail``.
    """

    train: DocumentRanges
    validation: DocumentRanges
    dropped: dict[str, npt.NDArray[np.bool_]]
    repeated_documents: int
    repeated_tokens: int
    validation_sizes: Ints
    kept: Ints
    split: str

    @property
    def validation_bytes(self) -> int:
        """Of the text held out."""
        return int(self.validation_sizes.sum())


def select(encoded: EncodedDocuments, config: DataConfig, weights: list[float], info: TokenizerInfo) -> Selection:
    """Choose what goes where.

    Args:
        encoded: all documents, in reading order.
        config: says about duplicates and the split.
        weights: of the sources.
        info: of the tokenizer, for ends that are held out.
    """
    table = encoded.table
    hashes = np.ascontiguousarray(table["hash"])
    times = copies(table["source"].astype(np.int64), hashes, weights, config.seed)
    dropped = _dropped(encoded, hashes, times, config)
    kept = np.flatnonzero(~np.logical_or.reduce([*dropped.values(), np.zeros(len(table), bool)]))
    split, sizes = choose_split(config.split), table["bytes"][kept]
    kinds = encoded.kinds[kept]
    held = hold_out(sizes, hashes[kept], kinds, config.validation_fraction, split, config.seed)
    train, whole = (DocumentRanges.of(table, kept[side], np.flatnonzero(side)) for side in (~held.whole, held.whole))
    train, ends, end_sizes = cut_tails(train, held.tails[~held.whole], encoded, info)
    validation, order = whole.and_others(ends)
    validation_sizes = np.concatenate([sizes[held.whole], end_sizes])[order]
    kept_sizes = np.zeros(len(table), np.int64)
    kept_sizes[kept] = sizes
    train, repeated = _with_copies(train, times, len(kept))
    repeated_tokens = int(train.tokens[len(train.tokens) - repeated :].sum())
    return Selection(train, validation, dropped, repeated, repeated_tokens, validation_sizes, kept_sizes, split)


def _dropped(
    encoded: EncodedDocuments, hashes: npt.NDArray[np.uint64], times: Ints, config: DataConfig
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which documents are left out, by reason, each by one reason."""
    keep = np.ones(len(encoded.table), bool)
    dropped: dict[str, npt.NDArray[np.bool_]] = {}
    if config.exact_dedup:
        dropped["duplicate"] = ~first_seen(hashes)
        keep &= ~dropped["duplicate"]
    if config.near_dedup:
        dropped["near_duplicate"] = near_duplicates(encoded.signatures(), keep)
        keep &= ~dropped["near_duplicate"]
    if (keep & (times == 0)).any():
        dropped["weight"] = keep & (times == 0)
    return dropped


def _with_copies(train: DocumentRanges, times: Ints, kept: int) -> tuple[DocumentRanges, int]:
    """(ranges, copies): documents of a source with weight 2 come twice, the second time with a new index."""
    extra = np.repeat(np.arange(len(train.entries)), np.maximum(times[train.entries] - 1, 0))
    if not len(extra):
        return train, 0
    columns = {name: np.concatenate([getattr(train, name), getattr(train, name)[extra]]) for name in vars(train)}
    columns["documents"][len(train.entries) :] = kept + np.arange(len(extra))
    return DocumentRanges(**columns), len(extra)
