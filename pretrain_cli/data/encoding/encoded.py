"""Opens all encoded documents, a shard at a time: a table with an entry each, and their ids in the shards' files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.cleaning.near_duplicates import Signatures
from pretrain_cli.data.encoding.shard_plan import ShardPlan
from pretrain_cli.data.encoding.shard_store import ShardStore
from pretrain_cli.data.encoding.shards import ShardCounts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardDocuments:
    """The documents of a shard that gave tokens, in reading order.

    Attributes:
        shard: its number.
        first: place of its first document among all.
        table: ``DOCUMENT`` [m].
        offsets: where each document's ids begin in the shard's file [m].
        files: place of the file that each document comes from [m].
        kinds: number of each document's source and kind of file [m].
    """

    shard: int
    first: int
    table: npt.NDArray[np.void]
    offsets: Ints
    files: npt.NDArray[np.int32]
    kinds: npt.NDArray[np.int32]

    @property
    def span(self) -> slice:
        """The documents' places among all."""
        return slice(self.first, self.first + len(self.table))


@dataclass(frozen=True)
class EncodedDocuments:
    """All documents that gave tokens. One shard's are in memory at a time.

    Attributes:
        counts: of each shard.
        store: of the shards' files.
        dtype: of the ids there.
        plan: of the shards.
        file_kinds: number of each file's source and kind [files].
        many: documents.
    """

    counts: Sequence[ShardCounts]
    store: ShardStore
    dtype: str
    plan: ShardPlan
    file_kinds: npt.NDArray[np.int32]
    many: int

    def shards(self, every: int = 1) -> Iterator[ShardDocuments]:
        """The shards in order, or one of ``every`` few."""
        first = 0
        for index, count in enumerate(self.counts):
            if index % every:
                first += count.kept_documents
                continue
            table = np.load(self.store.path(index, "documents.npy"))
            spans = self.plan.spans_of(index)
            files = np.frombuffer(self.plan.span_files, np.int32)[spans.start : spans.stop]
            files = np.repeat(files, count.span_documents)
            offsets = np.cumsum(table["tokens"]) - table["tokens"]
            yield ShardDocuments(index, first, table, offsets, files, self.file_kinds[files])
            first += len(table)

    def file_documents(self) -> Ints:
        """How many of the documents each file gave [files]."""
        found = np.zeros(len(self.plan.files), np.int64)
        for index, count in enumerate(self.counts):
            spans = self.plan.spans_of(index)
            files = np.frombuffer(self.plan.span_files, np.int32)[spans.start : spans.stop]
            np.add.at(found, files, count.span_documents)
        return found

    def ids_file(self, shard: int) -> Path:
        return self.store.path(shard, "ids")

    def signatures(self, shard: int) -> Signatures:
        """The MinHash signature of each document of a shard [m, 128], where near duplicates are sought."""
        return np.asarray(np.load(self.store.path(shard, "signatures.npy"), mmap_mode="r"))


def open_encoded(store: ShardStore, counts: Sequence[ShardCounts], plan: ShardPlan, dtype: str) -> EncodedDocuments:
    """The documents of all shards.

    Args:
        store: of the shards' files.
        counts: of each shard.
        plan: of the shards.
        dtype: of the ids.
    """
    many = sum(count.kept_documents for count in counts)
    return EncodedDocuments(counts, store, dtype, plan, plan.files.kind_numbers(), many)
