"""Reads packed rows from disk without copying them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pretrain_cli.data.rows.schema import PIECE_TYPES
from pretrain_cli.errors import DataError

Integers = npt.NDArray[np.integer]


class Rows:
    """Packed rows as numpy views over memory-mapped Arrow buffers; opening costs nothing and copies nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._blocks: list[dict[str, Integers]] = []
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

    def gather(self, indices: npt.ArrayLike) -> Integers:
        """ids [n, L] of the rows ``indices`` [n]."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        wanted = np.where(wanted < 0, wanted + self._length, wanted)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self._length):
            raise IndexError(f"row {wanted.max():,} of {self._length:,}")
        if len(self._blocks) == 1:
            return np.asarray(self._blocks[0]["input_ids"][wanted])
        out = np.empty((len(wanted), self.sequence_length), self.dtype)
        blocks, places = np.divmod(wanted, self._block_rows)
        for index, (block, place) in enumerate(zip(blocks.tolist(), places.tolist(), strict=True)):
            out[index] = self._blocks[block]["input_ids"][place]
        return out

    def pieces(self, index: int, name: str = "piece_lengths") -> Integers:
        """One piece column of row ``index``: [pieces of the row]."""
        block, place = divmod(index if index >= 0 else index + self._length, self._block_rows)
        views = self._blocks[block]
        first, last = views["offsets"][place], views["offsets"][place + 1]
        return views[name][first:last]

    def column(self, name: str) -> Integers:
        """A piece column of all rows, flat, in row order."""
        columns = [block[name][block["offsets"][0] : block["offsets"][-1]] for block in self._blocks]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)

    def counts(self) -> npt.NDArray[np.int64]:
        """Pieces in each row: [rows]."""
        columns = [np.diff(block["offsets"]).astype(np.int64) for block in self._blocks]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)


class _Gather:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._rows), self._rows.sequence_length

    def __getitem__(self, index: int | slice | npt.ArrayLike) -> Integers:
        if isinstance(index, slice):
            return self._rows.gather(np.arange(*index.indices(len(self._rows))))
        if isinstance(index, int | np.integer):
            return np.asarray(self._rows.gather([int(index)])[0])
        return self._rows.gather(index)


def _data_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / "state.json").read_text())
        return [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"No packed rows in {folder}.", "Prepare some first: ptk prepare data.txt") from error


def _views(batch: pa.RecordBatch) -> dict[str, Integers]:
    ids = batch.column(0)
    views = {"input_ids": _view(ids.flatten()).reshape(len(batch), -1)}
    for position, name in enumerate(PIECE_TYPES, 1):
        column = batch.column(position)
        views[name] = _view(column.values)
        views["offsets"] = _view(column.offsets)
    return views


def _view(values: pa.Array) -> Integers:
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
