"""Names JSON values, files and tokenizers by their hashes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash
from pydantic import JsonValue

from pretrain_cli.addresses import identity
from pretrain_cli.data.reading.input_files import InputFile, is_url
from pretrain_cli.errors import DataError
from pretrain_cli.progress import Progress
from pretrain_cli.storage import file_hash, user_path


def fingerprint(value: JsonValue) -> str:
    """A short name (32 hex digits) for a JSON value."""
    return str(xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()))


def hash_files(files: list[InputFile], progress: Progress) -> list[str]:
    """The xxh3-128 of each file's bytes as stored; of a URL, of its address without secrets, its size and version."""
    total = sum(max(0, file.size) for file in files)
    progress.stage("checking the input", total, "bytes")
    with ThreadPoolExecutor(2) as pool:
        hashes = list(pool.map(_hash, files))
    progress.end_stage()
    return hashes


def _hash(file: InputFile) -> str:
    if is_url(file.path):
        return str(xxhash.xxh3_128_hexdigest(f"{identity(file.path)} {file.size} {file.modified_ns}".encode()))
    try:
        return file_hash(Path(file.path))
    except OSError as error:
        raise DataError(f"{file.path} can't be read: {error.strerror}.", "Check its permissions.") from error


def hash_tokenizer(path: str) -> str:
    """The hash of the tokenizer.json that ``path`` names, "" where there is none (yet)."""
    file = user_path(path) if path else None
    if file is not None and file.is_dir():
        file = file / "tokenizer.json"
    return file_hash(file) if file is not None and file.is_file() else ""
