"""How packed rows lie on disk, and how they are read back without copying."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pretrain_cli.errors import DataError
from pretrain_cli.records import FileRecord, record_files
from pretrain_cli.storage import HashedFile

BATCH_TOKENS = 1 << 20
FILE_BYTES = 1 << 30
PIECE_TYPES = {
    "piece_lengths": pa.int32(),
    "piece_documents": pa.int64(),
    "piece_starts": pa.int64(),
    "piece_sources": pa.int16(),
}


@dataclass
class PackedBatch:
    """Rows ready to write.

    ``input_ids``: [rows, L]; ``counts``: pieces in each row; the piece columns: one entry a piece, in row order.
    """

    input_ids: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]
    piece_lengths: npt.NDArray[np.int32]
    piece_documents: npt.NDArray[np.int64]
    piece_starts: npt.NDArray[np.int64]
    piece_sources: npt.NDArray[np.int16]


def _schema(sequence_length: int, dtype: npt.DTypeLike) -> pa.Schema:
    ids = pa.list_(pa.field("item", pa.from_numpy_dtype(dtype)), sequence_length)
    fields = [pa.field("input_ids", ids), *(pa.field(name, pa.list_(kind)) for name, kind in PIECE_TYPES.items())]
    features = _features(sequence_length, np.dtype(dtype).name)
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _features(sequence_length: int, dtype: str) -> dict[str, Any]:
    def many(kind: str, length: int = -1) -> dict[str, Any]:
        return {"feature": {"dtype": kind, "_type": "Value"}, "length": length, "_type": "List"}

    return {"input_ids": many(dtype, sequence_length)} | {name: many(str(kind)) for name, kind in PIECE_TYPES.items()}


class RowWriter:
    """Writes rows as Arrow streams in the layout of ``datasets.save_to_disk``.

    Every record batch but the last has the same number of rows, so a reader finds a row by division; nothing that
    is written depends on how the caller cut its batches. ``files`` has the record of each file once all are written.
    """

    def __init__(self, folder: Path, sequence_length: int, dtype: npt.DTypeLike) -> None:
        self.folder, self.sequence_length, self.dtype = folder, sequence_length, np.dtype(dtype)
        self.batch_rows = max(1, BATCH_TOKENS // sequence_length)
        self.rows = 0
        self._held: list[PackedBatch] = []
        self._held_rows = 0
        self.files: dict[str, FileRecord] = {}
        self._files: list[Path] = []
        self._written: list[HashedFile] = []
        self._sink: Any = None
        self._writer: Any = None
        folder.mkdir(parents=True)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        elif self._sink is not None:
            self._sink.close()

    def write(self, batch: PackedBatch) -> None:
        if not len(batch.input_ids):
            return
        self._held.append(batch)
        self._held_rows += len(batch.input_ids)
        if self._held_rows >= self.batch_rows:
            self._flush(all_rows=False)

    def _flush(self, all_rows: bool) -> None:
        whole = _join(self._held)
        ends = np.concatenate([[0], np.cumsum(whole.counts)])
        total, start = len(whole.input_ids), 0
        while total - start >= self.batch_rows or (all_rows and start < total):
            stop = min(start + self.batch_rows, total)
            self._write_rows(_cut(whole, ends, start, stop))
            start = stop
        self._held = [_cut(whole, ends, start, total)] if start < total else []
        self._held_rows = total - start

    def _write_rows(self, batch: PackedBatch) -> None:
        if self._writer is None:
            self._open()
        elif self._sink.tell() > FILE_BYTES:
            self._close()
            self._open()
        schema = _schema(self.sequence_length, self.dtype)
        values = _arrow(batch.input_ids.reshape(-1), pa.from_numpy_dtype(self.dtype))
        ids = pa.FixedSizeListArray.from_arrays(values, type=schema.field("input_ids").type)
        offsets = _arrow(np.concatenate([[0], np.cumsum(batch.counts)]), pa.int32())
        pieces = [
            pa.ListArray.from_arrays(offsets, _arrow(getattr(batch, name), kind)) for name, kind in PIECE_TYPES.items()
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays([ids, *pieces], schema=schema))
        self.rows += len(batch.input_ids)

    def _open(self) -> None:
        path = self.folder / f"part-{len(self._files):05d}"
        self._files.append(path)
        self._written.append(HashedFile(path))
        self._sink = pa.PythonFile(self._written[-1], mode="w")
        self._writer = pa.ipc.new_stream(self._sink, _schema(self.sequence_length, self.dtype))

    def _close(self) -> None:
        self._writer.close()
        self._sink.close()
        self._writer = self._sink = None

    def _finish(self) -> None:
        if self._held:
            self._flush(all_rows=True)
        if self._writer is None and not self._files:
            self._open()
        self._close()
        names = [f"data-{index:05d}-of-{len(self._files):05d}.arrow" for index in range(len(self._files))]
        for path, name in zip(self._files, names, strict=True):
            os.replace(path, self.folder / name)
        self.files = {
            name: FileRecord(size=file.size, hash=file.hash) for name, file in zip(names, self._written, strict=True)
        }
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": "ptk",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self.folder / "state.json").write_text(json.dumps(state, indent=2))
        info = {"features": _features(self.sequence_length, self.dtype.name)}
        (self.folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
        self.files |= record_files(self.folder, ("state.json", "dataset_info.json"))


def _arrow(values: npt.NDArray[Any], kind: Any) -> Any:
    # pa.array() would import pandas, 0.15 s, to see whether it was given a Series.
    whole = np.ascontiguousarray(values, str(kind))
    return pa.Array.from_buffers(kind, len(whole), [None, pa.py_buffer(whole)])


def _join(batches: list[PackedBatch]) -> PackedBatch:
    if len(batches) == 1:
        return batches[0]
    names = ("input_ids", "counts", *PIECE_TYPES)
    return PackedBatch(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in names))


def _cut(batch: PackedBatch, ends: npt.NDArray[np.int64], start: int, stop: int) -> PackedBatch:
    first, last = ends[start], ends[stop]
    pieces = (getattr(batch, name)[first:last] for name in PIECE_TYPES)
    return PackedBatch(batch.input_ids[start:stop], batch.counts[start:stop], *pieces)


class Rows:
    """Packed rows as numpy views over memory-mapped Arrow buffers; opening costs nothing and copies nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._blocks: list[dict[str, npt.NDArray[Any]]] = []
        for path in _data_files(self.folder):
            reader = pa.ipc.open_stream(pa.memory_map(str(path)))  # left open: the views point into it
            schema = reader.schema
            self._blocks.extend(_views(batch) for batch in reader)
        ids_type = schema.field("input_ids").type
        self.sequence_length: int = ids_type.list_size
        self.dtype = np.dtype(str(ids_type.value_type))
        self._block_rows = len(self._blocks[0]["input_ids"]) if self._blocks else 1
        sizes = [len(block["input_ids"]) for block in self._blocks]
        self._length = sum(sizes)

    def __reduce__(self) -> tuple[type[Rows], tuple[Path]]:
        return Rows, (self.folder,)

    def __len__(self) -> int:
        return self._length

    @property
    def input_ids(self) -> _Gather:
        """Rows by index: ``rows.input_ids[3]`` is [L], ``rows.input_ids[[3, 5]]`` is [2, L], as stored."""
        return _Gather(self)

    def gather(self, indices: Any) -> npt.NDArray[Any]:
        """ids [n, L] of the rows ``indices`` [n]."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        wanted = np.where(wanted < 0, wanted + self._length, wanted)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self._length):
            raise IndexError(f"row {wanted.max()} of {self._length}")
        if len(self._blocks) == 1:
            return np.asarray(self._blocks[0]["input_ids"][wanted])
        out = np.empty((len(wanted), self.sequence_length), self.dtype)
        blocks, places = np.divmod(wanted, self._block_rows)
        for index, (block, place) in enumerate(zip(blocks.tolist(), places.tolist(), strict=True)):
            out[index] = self._blocks[block]["input_ids"][place]
        return out

    def pieces(self, index: int, name: str = "piece_lengths") -> npt.NDArray[Any]:
        """One piece column of row ``index``: [pieces of the row]."""
        block, place = divmod(index if index >= 0 else index + self._length, self._block_rows)
        views = self._blocks[block]
        first, last = views["offsets"][place], views["offsets"][place + 1]
        return views[name][first:last]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A piece column of all rows, flat, in row order."""
        parts = [block[name][block["offsets"][0] : block["offsets"][-1]] for block in self._blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def counts(self) -> npt.NDArray[np.int64]:
        """Pieces in each row: [rows]."""
        parts = [np.diff(block["offsets"]).astype(np.int64) for block in self._blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class _Gather:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._rows), self._rows.sequence_length

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        if isinstance(index, slice):
            return self._rows.gather(np.arange(*index.indices(len(self._rows))))
        if isinstance(index, int | np.integer):
            return np.asarray(self._rows.gather([index])[0])
        return self._rows.gather(index)


def _data_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / "state.json").read_text())
        return [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"No packed rows in {folder}.", "Prepare some first: ptk prepare data.txt") from error


def _views(batch: Any) -> dict[str, npt.NDArray[Any]]:
    ids = batch.column(0)
    views = {"input_ids": _view(ids.flatten()).reshape(len(batch), -1)}
    for position, name in enumerate(PIECE_TYPES, 1):
        column = batch.column(position)
        views[name] = _view(column.values)
        views["offsets"] = _view(column.offsets)
    return views


def _view(values: Any) -> npt.NDArray[Any]:
    # to_numpy() would import pandas, 0.15 to 1.5 s at the start of every training.
    if not len(values):
        return np.empty(0, str(values.type))
    return np.frombuffer(values.buffers()[1], str(values.type))[values.offset : values.offset + len(values)]


def open_rows(folder: Path) -> Rows:
    """The packed rows of one split.

    Raises:
        DataError: there are none, or the files are damaged.
    """
    try:
        return Rows(Path(folder))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The rows in {folder} can't be read: {error}.", "Make them again: ptk prepare") from error


@dataclass(frozen=True)
class StoredDocument:
    """A document as it was prepared; ids (uint16 or uint32 [n]) include its BOS and EOS."""

    index: int
    source: int
    ids: npt.NDArray[Any]


def iterate_documents(folder: Path) -> Iterator[StoredDocument]:
    """A split's documents, put back together from their pieces, in index order."""
    rows = open_rows(folder)
    counts, lengths = rows.counts(), rows.column("piece_lengths").astype(np.int64)
    documents, starts, sources = (rows.column(f"piece_{name}") for name in ("documents", "starts", "sources"))
    row_of = np.repeat(np.arange(len(rows)), counts)
    ends = np.cumsum(lengths)
    row_base = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])[:-1]] if len(rows) else ends
    column_of = ends - lengths - np.repeat(row_base, counts)
    order = np.lexsort((starts, documents))
    borders = np.flatnonzero(np.diff(documents[order])) + 1
    for group in np.split(order, borders) if len(order) else []:
        parts = []
        for piece in group:
            start = column_of[piece]
            parts.append(rows.input_ids[int(row_of[piece])][start : start + lengths[piece]])
        yield StoredDocument(int(documents[group[0]]), int(sources[group[0]]), np.concatenate(parts))
