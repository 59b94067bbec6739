"""Cuts the input into shards."""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_cli.data.encoding.shards import Shard
from pretrain_cli.data.reading.input_files import STDIN, InputFile, Span, is_url

LEAST_SHARD_BYTES, MOST_SHARD_BYTES = 1 << 20, 16 << 20
SHARDS_WANTED = 8
"""Small input is cut into smaller shards, so that several are encoded side by side; a kill loses at most one."""


def plan_shards(files: list[InputFile], shard_bytes: int = 0) -> list[Shard]:
    """Cut the input into shards of about ``shard_bytes`` (0: by its size), the same on every machine.

    Small files share a shard; large jsonl files are cut into ranges of lines.
    """
    total = sum(max(0, file.size) for file in files)
    shard_bytes = shard_bytes or min(MOST_SHARD_BYTES, max(LEAST_SHARD_BYTES, total // SHARDS_WANTED))
    shards: list[Shard] = []
    spans: list[Span] = []
    held = 0
    for file in files:
        for span in _spans(file, shard_bytes):
            if spans and held + max(0, span.size) > shard_bytes:
                shards.append(Shard(len(shards), tuple(spans)))
                spans, held = [], 0
            spans.append(span)
            held += max(0, span.size)
    if spans:
        shards.append(Shard(len(shards), tuple(spans)))
    return shards


def _spans(file: InputFile, shard_bytes: int) -> Iterator[Span]:
    splittable = file.format == "jsonl" and not file.compression and file.path != STDIN and not is_url(file.path)
    if not splittable or file.size <= shard_bytes:
        yield Span(file)
        return
    start = 0
    with open(file.path, "rb") as stream:
        while start < file.size:
            stream.seek(min(start + shard_bytes, file.size))
            stream.readline()
            end = stream.tell()
            yield Span(file, start, end)
            start = end


def choose_shards(shards: list[Shard], chosen: str) -> list[Shard]:
    """The shards that ``--shard i/n`` names, every n-th from the i-th on; all where ``chosen`` is empty."""
    if not chosen:
        return shards
    first, step = map(int, chosen.split("/"))
    return [shard for shard in shards if shard.index % step == first % step]
