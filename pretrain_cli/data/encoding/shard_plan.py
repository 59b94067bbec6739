"""Cuts the input into shards."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pretrain_cli.data.encoding.shards import Shard
from pretrain_cli.data.reading.file_table import FileTable, as_table
from pretrain_cli.data.reading.input_files import STDIN, InputFile, Span, is_url, open_input

HEAD_BYTES = 4096
LEAST_SHARD_BYTES, MOST_SHARD_BYTES = 1 << 20, 16 << 20
MOST_SHARD_FILES = 1 << 14
SHARDS_WANTED = 8
"""Small input is cut into smaller shards, so that several are encoded side by side; a kill loses at most one."""


@dataclass(frozen=True)
class ShardPlan:
    """The shards of an input, each made when it is asked for: as objects, a million files would take a gigabyte.

    Attributes:
        files: the input.
        span_files: place of each span's file.
        cuts: place of a span → the bytes that it takes of its file; other spans take all.
        ends: for each shard, the place after its last span.
        sizes: bytes of each shard as stored.
    """

    files: FileTable
    span_files: array[int]
    cuts: dict[int, tuple[int, int]]
    ends: array[int]
    sizes: array[int]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Shard:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Shard(index, tuple(map(self._span, self.spans_of(index))))

    def __iter__(self) -> Iterator[Shard]:
        return map(self.__getitem__, range(len(self)))

    def spans_of(self, index: int) -> range:
        """The places of a shard's spans."""
        return range(self.ends[index - 1] if index else 0, self.ends[index])

    def format_of(self, index: int) -> str:
        """The format of a shard's first file."""
        return self.files.format(self.span_files[self.spans_of(index)[0]])

    def _span(self, place: int) -> Span:
        return Span(self.files[self.span_files[place]], *self.cuts.get(place, (0, -1)))


def plan_shards(files: Sequence[InputFile], shard_bytes: int = 0) -> ShardPlan:
    """Cut the input into shards of about ``shard_bytes`` (0: by its size), the same on every machine.

    Small files share a shard; large jsonl files are cut into ranges of lines.
    """
    table = as_table(files)
    shard_bytes = shard_bytes or min(MOST_SHARD_BYTES, max(LEAST_SHARD_BYTES, table.total_bytes // SHARDS_WANTED))
    plan = ShardPlan(table, array("i"), {}, array("q"), array("q"))
    held = stored = 0
    for place, file_size in enumerate(table.sizes):
        splits = _splits(table[place], shard_bytes) if file_size > shard_bytes else None
        for cut in splits or ((0, -1),):
            size = (file_size if cut[1] < 0 else cut[1]) - cut[0]
            spans = len(plan.span_files)
            own = spans - (plan.ends[-1] if plan.ends else 0)
            if own and (held + max(0, size) > shard_bytes or own >= MOST_SHARD_FILES):
                plan.ends.append(spans)
                plan.sizes.append(stored)
                held = stored = 0
            if splits:
                plan.cuts[spans] = cut
            plan.span_files.append(place)
            held += max(0, size)
            stored += size
    if len(plan.span_files) > (plan.ends[-1] if plan.ends else 0):
        plan.ends.append(len(plan.span_files))
        plan.sizes.append(stored)
    return plan


def _splits(file: InputFile, shard_bytes: int) -> list[tuple[int, int]] | None:
    """The ranges of lines that a large file is cut into; None where it is read as a whole."""
    if file.format != "jsonl" or file.compression or file.path == STDIN or is_url(file.path):
        return None
    start, found = 0, []
    with open_input(file.path) as stream:
        if b"\0" in stream.read(HEAD_BYTES):  # UTF-16: its lines don't end with the byte of a line end
            return None
        while start < file.size:
            stream.seek(min(start + shard_bytes, file.size))
            stream.readline()
            end = stream.tell()
            found.append((start, end))
            start = end
    return found


def choose_shards(shards: int, chosen: str) -> range:
    """The shards that ``--shard i/n`` names, every n-th from the i-th on; all where ``chosen`` is empty."""
    if not chosen:
        return range(shards)
    first, step = map(int, chosen.split("/"))
    return range(first % step, shards, step)
