"""Defines what a split is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.encoded import Ints


@dataclass(frozen=True)
class DocumentRanges:
    """Ranges of the ids of some documents, one entry each, in order.

    Attributes:
        documents: index among the kept documents.
        shards: that hold the ids.
        offsets: of the ranges' ids in their shards.
        first: of the document's ids, where the range begins.
        tokens: in the range; BOS and EOS aren't counted.
        sources: index of the document's source.
        sizes: bytes of the range's text.
        all_tokens, all_bytes, lost_bytes: of the whole document.
        files: place of the document's file.
        before: tokens of the document that are written in front of the range, in ranges of their own.
        opens, closes: whether BOS, if there is one, comes before the range, and EOS after it.
    """

    documents: Ints
    shards: npt.NDArray[np.int32]
    offsets: Ints
    first: Ints
    tokens: Ints
    sources: npt.NDArray[np.int16]
    sizes: Ints
    all_tokens: Ints
    all_bytes: Ints
    lost_bytes: Ints
    files: npt.NDArray[np.int32]
    before: Ints
    opens: npt.NDArray[np.bool_]
    closes: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.documents)

    def where(self, chosen: npt.NDArray[np.bool_] | Ints) -> DocumentRanges:
        """Some of them."""
        return DocumentRanges(**{name: column[chosen] for name, column in vars(self).items()})

    def and_then(self, others: DocumentRanges) -> DocumentRanges:
        """These, then ``others``."""
        return DocumentRanges(
            **{name: np.concatenate([column, getattr(others, name)]) for name, column in vars(self).items()}
        )
