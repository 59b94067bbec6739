"""Names JSON values, files and tokenizers by their hashes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import JsonValue

from pretrain_cli.addresses import identity
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.input_files import is_url
from pretrain_cli.data.reading.small_files import SMALL_BYTES, read_small
from pretrain_cli.errors import DataError
from pretrain_cli.progress import Progress
from pretrain_cli.storage import file_hash, user_path

HASH_BYTES = 16
Hashes = npt.NDArray[np.uint8]
"""[n, 16]: the xxh3-128 of each of n files."""
AT_ONCE = 256


def fingerprint(value: JsonValue) -> str:
    """A short name (32 hex digits) for a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass")))  # names of files may not be UTF-8


def hash_files(files: FileTable, progress: Progress, known: Hashes | None = None) -> Hashes:
    """The xxh3-128 of each file's bytes as stored; of a URL, of its address without secrets, its size and version.

    ``known`` has those of files that have stayed as they were, and zeros for the others.
    """
    hashes = np.zeros((len(files), HASH_BYTES), np.uint8) if known is None else known
    left = np.flatnonzero(~hashes.any(axis=1))
    progress.stage("checking the input", files.total_bytes, "bytes")

    def take(places: list[int]) -> None:
        digests = b"".join(_hash(files, place) for place in places)
        hashes[places] = np.frombuffer(digests, np.uint8).reshape(-1, HASH_BYTES)

    with ThreadPoolExecutor(2) as pool:
        groups = (left[start : start + AT_ONCE].tolist() for start in range(0, len(left), AT_ONCE))
        for _ in pool.map(take, groups):
            pass
    progress.end_stage()
    return hashes


def _hash(files: FileTable, place: int) -> bytes:
    path, size = files.path(place), files.sizes[place]
    if is_url(path):
        return bytes(xxhash.xxh3_128_digest(f"{identity(path)} {size} {files.modified_ns[place]}".encode()))
    try:
        if 0 <= size <= SMALL_BYTES and (content := read_small(path, size)) is not None:
            return bytes(xxhash.xxh3_128_digest(content))
        return bytes.fromhex(file_hash(Path(path)))
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error


def hash_tokenizer(path: str) -> str:
    """The hash of the tokenizer.json that ``path`` names, "" where there is none (yet)."""
    file = user_path(path) if path else None
    if file is not None and file.is_dir():
        file = file / "tokenizer.json"
    return file_hash(file) if file is not None and file.is_file() else ""
