"""Opens all encoded documents: a table with an entry each, and their ids in the shards' files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.cleaning.near_duplicates import Signatures
from pretrain_cli.data.encoding.shard_files import shard_file
from pretrain_cli.data.encoding.shard_plan import plan_shards
from pretrain_cli.data.encoding.shards import DOCUMENT, ShardCounts
from pretrain_cli.data.reading.input_files import InputFile, number_kinds

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedDocuments:
    """All documents that gave tokens, in reading order.

    Attributes:
        table: ``DOCUMENT`` [n].
        shard_sizes: documents in each shard.
        folder: of the shards' files.
        dtype: of the ids there.
        spans: (file, documents) of each span that was read, in order.
    """

    table: npt.NDArray[np.void]
    shard_sizes: list[int]
    folder: Path
    dtype: str
    spans: Sequence[tuple[InputFile, int]]

    @functools.cached_property
    def span_numbers(self) -> npt.NDArray[np.int32]:
        """The place in ``spans`` that each document comes from [n]."""
        many = [documents for _, documents in self.spans]
        return np.repeat(np.arange(len(many), dtype=np.int32), many)

    @functools.cached_property
    def kinds(self) -> Ints:
        """The number of each document's source and kind of file [n]."""
        return np.array(number_kinds(file for file, _ in self.spans), np.int64)[self.span_numbers]

    def ids_file(self, shard: int) -> Path:
        return shard_file(self.folder, shard, "ids")

    def signatures(self) -> Signatures:
        """The MinHash signature of each document [n, 128], where near duplicates are sought."""
        files = (shard_file(self.folder, shard, "signatures.npy") for shard in range(len(self.shard_sizes)))
        return np.concatenate([np.load(file) for file in files])

    @functools.cached_property
    def places(self) -> tuple[npt.NDArray[np.int32], Ints]:
        """(shard [n], offset [n]): where each document's ids begin."""
        sizes = self.shard_sizes
        ends = np.cumsum(self.table["tokens"])
        before = np.concatenate([[0], ends])[np.cumsum(sizes) - sizes]
        shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        ends -= self.table["tokens"]
        ends -= before[shard]
        return shard, ends


def open_encoded(folder: Path, counts: Sequence[ShardCounts], files: list[InputFile], dtype: str) -> EncodedDocuments:
    """The documents of all shards. Besides the whole table, one shard's is in memory at a time.

    Args:
        folder: of the shards' files.
        counts: of each shard.
        files: the input that the shards were planned from.
        dtype: of the ids.
    """
    tables = [shard_file(folder, index, "documents.npy") for index in range(len(counts))]
    sizes = [len(np.load(file, mmap_mode="r")) for file in tables]
    table, at = np.empty(sum(sizes), DOCUMENT), 0
    for file, size in zip(tables, sizes, strict=True):
        table[at : at + size] = np.load(file)
        at += size
    spans = [span.file for shard in plan_shards(files) for span in shard.spans]
    documents = [number for count in counts for number in count.span_documents]
    return EncodedDocuments(table, sizes, folder, dtype, list(zip(spans, documents, strict=True)))
