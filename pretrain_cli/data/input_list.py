"""Writes the list of all input files beside the manifest, and tells by it which of them are as they were."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from pydantic import JsonValue

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.fingerprint import HASH_BYTES, Hashes, hash_files
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import INPUT_LIST, Manifest, read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.records import damaged_files

SCHEMA = pa.schema(
    {"path": pa.large_string(), "size": pa.int64(), "hash": pa.binary(HASH_BYTES)}
    | {"modified_ns": pa.int64(), "changed_ns": pa.int64(), "documents": pa.int64()}
)
BATCH_ROWS = 1 << 16
SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was hashed may have changed again at what its clock calls one time."""


@dataclass(frozen=True)
class Inputs:
    """The input's files and what names their bytes.

    Attributes:
        sources: the files.
        hashes: of each file; zeros where they weren't needed.
        digest: names all paths and bytes, in order.
        stamp: names the files by their sizes and times; empty where these were too new to be trusted.
        hashed_ns: when the files were about to be hashed.
    """

    sources: Sources
    hashes: Hashes
    digest: str
    stamp: str = ""
    hashed_ns: int = 0


def find_inputs(sources: Sources, artifacts: Artifacts, progress: Progress) -> Inputs:
    """The input's files, hashed as far as the last prepare's list doesn't know them.

    Raises:
        DataError: a file can't be read.
    """
    now, stamp = time.time_ns(), sources.files.stamp()
    known = KnownInputs.of(artifacts)
    if known is not None and known.manifest.inputs_stamp == stamp and len(known.hashes) == len(sources.files):
        return Inputs(sources, known.hashes, known.digest, stamp, known.manifest.inputs_hashed_ns)
    hashes = hash_files(sources.files, progress, known.hashes_of(sources) if known is not None else None)
    settled = sources.files.newest_ns() < now - SETTLED_NS
    return Inputs(sources, hashes, digest_of(sources.paths(), hashes), stamp if settled else "", now)


def unhashed_inputs(sources: Sources) -> Inputs:
    """The input's files, where nothing needs their hashes."""
    return Inputs(sources, np.zeros((len(sources.files), HASH_BYTES), np.uint8), "")


def digest_of(paths: Iterator[str], hashes: Hashes) -> str:
    """Names the files by their paths and bytes, in order."""
    digest = xxhash.xxh3_128()
    for path, own in zip(paths, hashes, strict=True):
        digest.update(written(path) + b"\0" + own.tobytes())
    return str(digest.hexdigest())


def digest_of_list(listed: JsonValue) -> str:
    """The same of ``[[path, hex digits], …]``, which the manifests of before held."""
    pairs = _pairs(listed)
    return digest_of((path for path, _ in pairs), _from_hex(digest for _, digest in pairs))


def _pairs(listed: JsonValue) -> list[tuple[str, str]]:
    return (
        [(str(each[0]), str(each[1])) for each in listed if isinstance(each, list)] if isinstance(listed, list) else []
    )


def _from_hex(digests: Iterator[str]) -> Hashes:
    return np.frombuffer(b"".join(map(bytes.fromhex, digests)), np.uint8).reshape(-1, HASH_BYTES)


def write_inputs(path: Path, inputs: Inputs, documents: npt.NDArray[np.int64]) -> None:
    """Write the list of all files, and how many ``documents`` each gave: an Arrow file of ``SCHEMA``."""
    files, names = inputs.sources.files, inputs.sources.paths()
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer,
    ):
        for start in range(0, len(files), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, len(files))
            texts = [written(next(names)) for _ in range(start, stop)]
            columns = [
                _strings(texts),
                _column(np.frombuffer(files.sizes, np.int64)[start:stop], SCHEMA.field("size").type),
                _column(inputs.hashes[start:stop], SCHEMA.field("hash").type),
                _column(np.frombuffer(files.modified_ns, np.int64)[start:stop], SCHEMA.field("modified_ns").type),
                _column(np.frombuffer(files.changed_ns, np.int64)[start:stop], SCHEMA.field("changed_ns").type),
                _column(documents[start:stop], SCHEMA.field("documents").type),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))


def files_of(path: Path, documents: Sequence[int]) -> list[str]:
    """The files that documents come from, by the list in ``path``; empty names where it doesn't tell."""
    names = [""] * len(documents)
    if not path.is_file():
        return names
    before = 0
    open(path, "rb").close()  # its refusal names the file, pyarrow's doesn't
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches if "documents" in reader.schema.names else 0):
            batch = reader.get_batch(number)
            ends = before + np.cumsum(_fixed(batch.column("documents"), np.dtype(np.int64)))
            for at, document in enumerate(documents):
                if before <= document < ends[-1]:
                    file = int(np.searchsorted(ends, document, side="right"))
                    names[at] = str(batch.column("path")[file].as_py())
            before = int(ends[-1])
    return names


def _strings(texts: Sequence[bytes]) -> pa.Array:
    # pa.array() would import pandas, 0.15 s, to see whether it was given a Series.
    ends = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    return pa.Array.from_buffers(
        pa.large_string(), len(texts), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    )


def _column(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


@dataclass(frozen=True)
class KnownInputs:
    """What the last prepare recorded of its input files: ``path`` is its list, None where it is missing or damaged."""

    manifest: Manifest
    path: Path | None

    @classmethod
    def of(cls, artifacts: Artifacts) -> KnownInputs | None:
        """None where there is no manifest that can be read."""
        try:
            manifest = read_manifest(artifacts)
        except DataError:
            return None
        record = manifest.files.get(INPUT_LIST)
        whole = record is not None and not damaged_files(artifacts.root, {INPUT_LIST: record}, read=True)
        return cls(manifest, artifacts.input_list if whole else None)

    @property
    def digest(self) -> str:
        """Names all paths and bytes, in order."""
        listed = self.manifest.request.get("inputs")
        return listed if isinstance(listed, str) else digest_of_list(listed)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The list, some files at a time."""
        if self.path is not None:
            with pa.memory_map(str(self.path)) as source, pa.ipc.open_file(source) as reader:
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number)

    @cached_property
    def hashes(self) -> Hashes:
        """Of all files, in their order."""
        own = [_fixed(batch.column(2), np.dtype((np.uint8, HASH_BYTES))) for batch in self.batches()]
        return np.concatenate(own) if own else np.zeros((0, HASH_BYTES), np.uint8)

    def paths(self) -> Iterator[bytes]:
        """Of all files, in their order."""
        return itertools.chain.from_iterable(_texts(batch.column(0)) for batch in self.batches())

    def listed(self) -> tuple[list[bytes], Hashes]:
        """(paths, hashes) of all files, also of a manifest that held them itself."""
        own = self.manifest.request.get("inputs")
        if not isinstance(own, list):
            return list(self.paths()), self.hashes
        pairs = _pairs(own)
        return [written(path) for path, _ in pairs], _from_hex(digest for _, digest in pairs)

    def hashes_of(self, sources: Sources) -> Hashes | None:
        """The hashes of the files whose size and times are as they were, zeros for the others; None if none are."""
        keys, columns = [], []
        for batch in self.batches():
            keys.append(path_keys(_texts(batch.column(0))))
            columns.append([_fixed(batch.column(place), np.dtype(np.int64)) for place in (1, 3, 4)])
        if not keys or not sum(map(len, keys)):
            return None
        known = np.concatenate(keys)
        size, modified, changed = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        files = sources.files
        wanted = path_keys(map(written, sources.paths()))
        order = np.argsort(known, kind="stable")
        at = order[np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)]
        same = known[at] == wanted
        for column, now in ((size, files.sizes), (modified, files.modified_ns), (changed, files.changed_ns)):
            same &= column[at] == np.frombuffer(now, np.int64)
        newest = np.maximum(modified, changed)[at]
        same &= (newest > 0) & (newest < self.manifest.inputs_hashed_ns - SETTLED_NS) & (changed[at] > 0)
        return np.where(same[:, None], self.hashes[at], 0).astype(np.uint8) if same.any() else None


def written(path: str) -> bytes:
    """A path as the list has it: bytes of a name that aren't UTF-8 become ``\\udce9``."""
    return path.encode("utf-8", "backslashreplace")


def path_keys(paths: Iterator[bytes]) -> npt.NDArray[np.uint64]:
    """A number for each path."""
    return np.fromiter((xxhash.xxh3_64_intdigest(path) for path in paths), np.uint64)


def _texts(column: pa.Array) -> Iterator[bytes]:
    _, ends, content = column.buffers()
    places = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1].tolist()
    view = memoryview(content)
    return (bytes(view[start:stop]) for start, stop in itertools.pairwise(places))


def _fixed(column: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    values = np.frombuffer(column.buffers()[1], dtype.base).reshape(-1, *dtype.shape)
    return np.array(values[column.offset : column.offset + len(column)])
