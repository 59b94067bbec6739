"""Encodes one shard into files, and reads the files of finished shards."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pretrain_cli.addresses import redact_all
from pretrain_cli.data.cleaning.near_duplicates import PERMUTATIONS
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shard_encoder import ShardEncoder
from pretrain_cli.data.encoding.shards import Shard, ShardCounts, ShardSettings
from pretrain_cli.records import FileRecord, Record, damaged_files, record_files
from pretrain_cli.refusals import writing_to
from pretrain_cli.storage import HashedFile

ENDINGS = ("ids", "documents.npy", "signatures.npy", "rejected")
"""Of a shard's files, but for its record."""


class ShardRecord(Record):
    """What was counted in a shard, and its files: name → size and hash."""

    counts: ShardCounts
    files: dict[str, FileRecord]


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
        _save(shard_file(folder, shard.index, "documents.npy"), table)
        encoding.counts.lossy_documents = int((table["lost_bytes"] > 0).sum())
        encoding.counts.lost_bytes = int(table["lost_bytes"].sum())
        if settings.near_dedup:
            signatures = np.array(encoding.signatures, np.uint32).reshape(-1, PERMUTATIONS)
            _save(shard_file(folder, shard.index, "signatures.npy"), signatures)
        if encoding.rejected:
            lines = (json.dumps(redact_all(asdict(entry)), ensure_ascii=False) for entry in encoding.rejected)
            rejected = shard_file(folder, shard.index, "rejected")
            rejected.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
        unfinished = shard_file(folder, shard.index, "json.new")
        names = (shard_file(folder, shard.index, ending).name for ending in ENDINGS)
        files = record_files(folder, [name for name in names if (folder / name).is_file()])
        record = {"counts": redact_all(asdict(encoding.counts)), "files": {n: f.model_dump() for n, f in files.items()}}
        unfinished.write_text(json.dumps(record), encoding="utf-8")
        os.replace(unfinished, shard_file(folder, shard.index, "json"))
    return encoding.counts


def _save(path: Path, array: NDArray[Any]) -> None:
    """Write an array; where numpy opens the file itself, its error doesn't say why the disk refuses."""
    with contextlib.closing(HashedFile(path)) as file:
        np.save(file, array)


def read_shard_record(folder: Path, index: int) -> ShardRecord | None:
    """The record of a shard, which is written once its files are; None without one that can be read."""
    path = shard_file(folder, index, "json")
    try:
        return ShardRecord.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        return None


def finished_shard(folder: Path, index: int) -> ShardRecord | None:
    """The record of a shard whose files are those that were written, or None.

    The files aren't synced, which would take longer than encoding: a power failure may leave a name without its bytes.
    """
    record = read_shard_record(folder, index)
    return None if record is None or damaged_files(folder, record.files, read=True) else record
