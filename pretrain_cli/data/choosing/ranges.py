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
        entries: index in the table of all encoded documents.
        first: of the document's ids, where the range begins.
        tokens: in the range; BOS and EOS aren't counted.
        sources: index of the document's source.
    """

    documents: Ints
    entries: Ints
    first: Ints
    tokens: Ints
    sources: Ints

    @staticmethod
    def of(table: npt.NDArray[np.void], entries: Ints, documents: Ints) -> DocumentRanges:
        """All ids of some documents."""
        first = np.broadcast_to(np.int64(0), len(entries))
        return DocumentRanges(documents, entries, first, table["tokens"][entries], table["source"][entries])

    def and_others(self, others: DocumentRanges) -> tuple[DocumentRanges, Ints]:
        """Both together, by document; and which of them comes when."""
        columns = {name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in vars(self)}
        order = np.argsort(columns["documents"], kind="stable")
        return DocumentRanges(**{name: column[order] for name, column in columns.items()}), order
