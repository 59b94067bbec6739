"""Encodes one shard into files, and reads the files of finished shards."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pretrain_cli.addresses import redact_all
from pretrain_cli.data.cleaning.near_duplicates import PERMUTATIONS
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shard_encoder import ShardEncoder
from pretrain_cli.data.encoding.shards import Shard, ShardCounts, ShardSettings
from pretrain_cli.refusals import writing_to

ENDINGS = ("ids", "documents.npy", "signatures.npy", "rejected")
"""Of a shard's files, but for its record."""


def shard_file(folder: Path, index: int, ending: str) -> Path:
    """A file of shard ``index``: ``ids``, ``documents.npy``, ``signatures.npy``, ``rejected``, and last ``json``."""
    return folder / f"task-{index:06d}.{ending}"


def encode_shard(
    shard: Shard,
    settings: ShardSettings,
    folder: Path,
    encoder: Encoder | None = None,
    stop: threading.Event | None = None,
) -> ShardCounts:
    """Read, clean and encode a shard into its files in ``folder``; a pure function of input and settings.

    Bad records are listed in a file of their own, a JSON object a line. Once ``stop`` is set the encoding ends at the
    next record with ``Stopped``.

    Raises:
        DataError: a bad record or file, where the settings' ``strict`` makes it an error.
    """
    with writing_to(folder):
        with (
            open(shard_file(folder, shard.index, "ids"), "wb") as sink,
            ShardEncoder(settings, encoder or Encoder(settings.encoder), sink, stop) as encoding,
        ):
            encoding.read_spans(shard.spans)
        table = encoding.table()
        np.save(shard_file(folder, shard.index, "documents.npy"), table)
        encoding.counts.lossy_documents = int((table["lost_bytes"] > 0).sum())
        encoding.counts.lost_bytes = int(table["lost_bytes"].sum())
        if settings.near_dedup:
            signatures = np.array(encoding.signatures, np.uint32).reshape(-1, PERMUTATIONS)
            np.save(shard_file(folder, shard.index, "signatures.npy"), signatures)
        if encoding.rejected:
            lines = (json.dumps(redact_all(asdict(entry)), ensure_ascii=False) for entry in encoding.rejected)
            rejected = shard_file(folder, shard.index, "rejected")
            rejected.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
        unfinished = shard_file(folder, shard.index, "json.new")
        record = {"counts": redact_all(asdict(encoding.counts)), "sizes": _sizes(folder, shard.index)}
        unfinished.write_text(json.dumps(record), encoding="utf-8")
        os.replace(unfinished, shard_file(folder, shard.index, "json"))
    return encoding.counts


def finished_shard(folder: Path, index: int) -> ShardCounts | None:
    """The counts of a shard whose files are complete, or None.

    The files aren't synced, which would take longer than encoding: a power failure may leave a name without its bytes.
    """
    path = shard_file(folder, index, "json")
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError:
        return None
    return ShardCounts(**record["counts"]) if record and record["sizes"] == _sizes(folder, index) else None


def _sizes(folder: Path, index: int) -> dict[str, int]:
    """Name → bytes, of the files that a shard's ``json`` vouches for."""
    files = (shard_file(folder, index, ending) for ending in ENDINGS)
    return {file.name: file.stat().st_size for file in files if file.is_file()}
