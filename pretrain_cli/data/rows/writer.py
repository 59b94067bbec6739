"""Writes packed rows to disk, in the layout of ``datasets``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pretrain_cli.data.rows.schema import PIECE_TYPES, PackedBatch, row_features, row_schema
from pretrain_cli.records import FileRecord, record_files
from pretrain_cli.storage import HashedFile

BATCH_TOKENS = 1 << 20
FILE_BYTES = 1 << 30


class RowWriter:
    """Writes rows as Arrow streams in the layout of ``datasets.save_to_disk``.

    Every record batch but the last has the same number of rows, so a reader finds a row by division; nothing that
    is written depends on how the caller divides its rows into batches. ``files`` has the record of each file once the
    ``with`` block has ended.
    """

    def __init__(self, folder: Path, sequence_length: int, dtype: npt.DTypeLike) -> None:
        self.folder, self.sequence_length, self.dtype = folder, sequence_length, np.dtype(dtype)
        self.batch_rows = max(1, BATCH_TOKENS // sequence_length)
        self.rows = 0
        self._held: list[PackedBatch] = []
        self._held_rows = 0
        self.files: dict[str, FileRecord] = {}
        self._files: list[Path] = []
        self._file_rows: list[int] = []
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
        """Take rows; they are on disk once the ``with`` block ends."""
        if not len(batch.input_ids):
            return
        self._held.append(batch)
        self._held_rows += len(batch.input_ids)
        if self._held_rows >= self.batch_rows:
            self._flush(all_rows=False)

    def _flush(self, all_rows: bool) -> None:
        held = _join(self._held)
        ends = np.concatenate([[0], np.cumsum(held.counts)])
        total, start = len(held.input_ids), 0
        while total - start >= self.batch_rows or (all_rows and start < total):
            stop = min(start + self.batch_rows, total)
            self._write_rows(_cut(held, ends, start, stop))
            start = stop
        self._held = [_cut(held, ends, start, total)] if start < total else []
        self._held_rows = total - start

    def _write_rows(self, batch: PackedBatch) -> None:
        if self._writer is None:
            self._open()
        elif self._written[-1].size > FILE_BYTES:
            self._close()
            self._open()
        schema = row_schema(self.sequence_length, self.dtype)
        values = _arrow(batch.input_ids.reshape(-1), pa.from_numpy_dtype(self.dtype))
        ids = pa.FixedSizeListArray.from_arrays(values, type=schema.field("input_ids").type)
        offsets = _arrow(np.concatenate([[0], np.cumsum(batch.counts)]), pa.int32())
        pieces = [
            pa.ListArray.from_arrays(offsets, _arrow(getattr(batch, name), kind)) for name, kind in PIECE_TYPES.items()
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays([ids, *pieces], schema=schema))
        self.rows += len(batch.input_ids)
        self._file_rows[-1] += len(batch.input_ids)

    def _open(self) -> None:
        path = self.folder / f"unfinished-{len(self._files):05d}"
        self._files.append(path)
        self._file_rows.append(0)
        self._written.append(HashedFile(path))
        self._sink = pa.PythonFile(self._written[-1], mode="w")
        self._writer = pa.ipc.new_stream(self._sink, row_schema(self.sequence_length, self.dtype))

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
        state: dict[str, object] = {
            "_data_files": [
                {"filename": name, "rows": rows} for name, rows in zip(names, self._file_rows, strict=True)
            ],
            "_fingerprint": "ptk",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self.folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        info = {"features": row_features(self.sequence_length, self.dtype.name)}
        (self.folder / "dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
        self.files |= record_files(self.folder, ("state.json", "dataset_info.json"))


def _arrow(values: npt.NDArray[np.integer], kind: pa.DataType) -> pa.Array:
    # pa.array() would import pandas, 0.15 s, to see whether it was given a Series.
    contiguous = np.ascontiguousarray(values, str(kind))
    return pa.Array.from_buffers(kind, len(contiguous), [None, pa.py_buffer(contiguous)])


def _join(batches: list[PackedBatch]) -> PackedBatch:
    if len(batches) == 1:
        return batches[0]
    names = ("input_ids", "counts", *PIECE_TYPES)
    return PackedBatch(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in names))


def _cut(batch: PackedBatch, ends: npt.NDArray[np.int64], start: int, stop: int) -> PackedBatch:
    first, last = ends[start], ends[stop]
    pieces = (getattr(batch, name)[first:last] for name in PIECE_TYPES)
    return PackedBatch(batch.input_ids[start:stop], batch.counts[start:stop], *pieces)
