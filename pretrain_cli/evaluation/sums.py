"""Sums up scored tokens by block of text, by position and by token; logits are never kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pretrain_cli.tokenizer.round_trip import RoundTrip

BLOCK_BYTES = 1024
"""Size of the blocks that a document is cut into for intervals."""

OPENING_CHARACTERS = 160

POSITION_EDGES = (1, 4, 16, 64, 256, 1024, 4096)
"""Lower edges of the buckets, in tokens that a prediction could see."""

COLUMNS = ("nats", "tokens", "top1", "top5", "bytes")

Sums = NDArray[np.float64]
"""float64[..., 5] in the order of COLUMNS, or any float64 array that is added up."""


@dataclass
class DocumentSums:
    """One document's sums, in blocks of its bytes; the bytes are those of the text, known before a token is scored."""

    name: str
    source: str
    opening: str = ""
    n_bytes: int = 0
    _room: Sums = field(default_factory=lambda: np.zeros((1, len(COLUMNS))))

    @property
    def blocks(self) -> Sums:
        """float64[n_blocks, 5] in the order of COLUMNS; a view that sums can be added to."""
        return self._room[: max(1, math.ceil(self.n_bytes / BLOCK_BYTES))]

    def grow(self, text: str) -> None:
        """Count ``text`` as the next part of the document."""
        if len(self.opening) < OPENING_CHARACTERS:
            self.opening = " ".join((self.opening + " " + text[:OPENING_CHARACTERS]).split())[:OPENING_CHARACTERS]
        self.n_bytes += len(text.encode("utf-8"))
        needed = math.ceil(self.n_bytes / BLOCK_BYTES)
        if needed > len(self._room):
            missing = max(needed, 2 * len(self._room)) - len(self._room)
            self._room = np.concatenate([self._room, np.zeros((missing, len(COLUMNS)))])
        blocks = self.blocks
        blocks[:, 4] = BLOCK_BYTES
        blocks[-1, 4] = self.n_bytes - BLOCK_BYTES * (len(blocks) - 1)


@dataclass
class TextSums:
    """All sums of one model on one text. They grow with documents and vocabulary, not with tokens."""

    vocab_size: int
    back: RoundTrip
    documents: list[DocumentSums] = field(default_factory=list)
    unencoded_bytes: int = 0

    def __post_init__(self) -> None:
        self.token_nats: Sums = np.zeros(self.vocab_size)
        self.token_counts: Sums = np.zeros(self.vocab_size)
        self.position_nats: Sums = np.zeros(len(POSITION_EDGES))
        self.position_counts: Sums = np.zeros(len(POSITION_EDGES))

    def open_document(self, name: str, source: str) -> DocumentSums:
        """Start a document."""
        document = DocumentSums(name, source)
        self.documents.append(document)
        return document

    def add(
        self,
        document: DocumentSums,
        block_index: NDArray[np.int64],
        token_ids: NDArray[np.int64],
        context: NDArray[np.int64],
        nats: Sums,
        rank: NDArray[np.int64],
    ) -> None:
        """Add scored tokens, arrays [n]: their block, id, tokens before them, loss in nats, rank among all logits."""
        per_token = np.stack([nats, np.ones_like(nats), rank < 1, rank < 5], axis=1)
        np.add.at(document.blocks[:, :4], block_index, per_token)
        np.add.at(self.token_nats, token_ids, nats)
        np.add.at(self.token_counts, token_ids, 1)
        bucket = np.searchsorted(POSITION_EDGES, context, side="right") - 1
        np.add.at(self.position_nats, bucket, nats)
        np.add.at(self.position_counts, bucket, 1)

    def blocks(self) -> Sums:
        """The blocks of all documents, float64[n, 5]: the units that intervals draw from."""
        return np.concatenate([document.blocks for document in self.documents])

    def by_position(self) -> list[dict[str, float]]:
        """Loss in nats per token, by how many tokens the prediction could see."""
        return [
            {"from": edge, "tokens": count, "loss": nats / count}
            for edge, count, nats in zip(
                POSITION_EDGES, self.position_counts.tolist(), self.position_nats.tolist(), strict=True
            )
            if count
        ]

    def by_frequency(self) -> list[dict[str, float]]:
        """Loss in nats per token, by how often the token occurs in this text."""
        rows = []
        for low, high in ((1, 1), (2, 9), (10, 99), (100, 999), (1000, math.inf)):
            inside = (self.token_counts >= low) & (self.token_counts <= high)
            tokens = float(self.token_counts[inside].sum())
            if tokens:
                rows.append({"from": low, "tokens": tokens, "loss": float(self.token_nats[inside].sum()) / tokens})
        return rows
