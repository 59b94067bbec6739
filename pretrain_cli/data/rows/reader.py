"""Reads packed rows from disk without copying them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from pretrain_cli.data.rows.schema import PIECE_TYPES
from pretrain_cli.errors import DataError
from pretrain_cli.refusals import denied
from pretrain_cli.storage import read_json

REMAKE = "Make the rows again: ptk prepare"
ROW_COLUMNS = ("input_ids", *PIECE_TYPES)
SHOWN = 5
"""Columns of another file that are named."""
Integers = npt.NDArray[np.integer]
Block = dict[str, Integers]
"""A record batch: its columns, and where the pieces of each row begin ("offsets")."""


class RowFile(BaseModel):
    """A file of rows, right in its folder: another path could be any file, or a pipe that nobody writes to."""

    filename: str = Field(pattern=r"^data-\d+-of-\d+\.arrow$")
    rows: int = Field(0, ge=0)


class RowFiles(BaseModel):
    """What state.json says of the files."""

    files: list[RowFile] = Field(alias="_data_files", min_length=1)


class Rows:
    """Packed rows as numpy views over memory-mapped Arrow buffers; opening costs nothing and copies nothing.

    ``file_rows`` are those of each file.
    """

    file_rows: tuple[int, ...]

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._blocks: list[Block | None] = []
        file_rows = []
        for entry in data_files(self.folder):
            blocks, schema = open_blocks(self.folder / entry["filename"])
            self._blocks.extend(blocks)
            file_rows.append(sum(len(block["input_ids"]) for block in blocks))
        self.file_rows = tuple(file_rows)
        self._take_shape(schema, self._block(0) if self._blocks else None)
        self._length = sum(file_rows)

    def _take_shape(self, schema: pa.Schema, block: Block | None) -> None:
        """Row length and type, and the rows of a block, which all but the last have."""
        ids_type = schema.field("input_ids").type
        self.sequence_length: int = ids_type.list_size
        self.dtype = np.dtype(str(ids_type.value_type))
        self._block_rows = len(block["input_ids"]) if block is not None else 1

    def _block(self, number: int) -> Block:
        found = self._blocks[number]
        assert found is not None
        return found

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
            return np.asarray(self._block(0)["input_ids"][wanted])
        out = np.empty((len(wanted), self.sequence_length), self.dtype)
        blocks, places = np.divmod(wanted, self._block_rows)
        for index, (block, place) in enumerate(zip(blocks.tolist(), places.tolist(), strict=True)):
            out[index] = self._block(block)["input_ids"][place]
        return out

    def pieces(self, index: int, name: str = "piece_lengths") -> Integers:
        """One piece column of row ``index``: [pieces of the row]."""
        block, place = divmod(index if index >= 0 else index + self._length, self._block_rows)
        views = self._block(block)
        first, last = views["offsets"][place], views["offsets"][place + 1]
        return views[name][first:last]

    def column(self, name: str) -> Integers:
        """A piece column of all rows, flat, in row order."""
        blocks = map(self._block, range(len(self._blocks)))
        columns = [block[name][block["offsets"][0] : block["offsets"][-1]] for block in blocks]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)

    def counts(self) -> npt.NDArray[np.int64]:
        """Pieces in each row: [rows]."""
        blocks = map(self._block, range(len(self._blocks)))
        columns = [np.diff(block["offsets"]).astype(np.int64) for block in blocks]
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


def open_blocks(path: Path) -> tuple[list[Block], pa.Schema]:
    """The blocks of a file, which is mapped, and what is in them.

    Raises:
        DataError: it holds something else than rows.
        ArrowInvalid, OSError: it can't be read.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path} is missing, or is not a file.", REMAKE)
    open(path, "rb").close()  # a refusal of the system's names the file, pyarrow's doesn't
    reader = pa.ipc.open_stream(pa.memory_map(str(path)))  # left open: the views point into it
    if told := _not_rows(reader.schema):
        raise DataError(f"{path} doesn't hold packed rows: {told}.", REMAKE)
    blocks = []
    for batch in reader:
        batch.validate()  # of the buffers' lengths, at no cost
        blocks.append(_views(batch))
    return blocks, reader.schema


def _not_rows(schema: pa.Schema) -> str:
    """What is wrong with the columns, in words; empty where nothing is."""
    if (names := schema.names) != [*ROW_COLUMNS]:
        return f"its columns are {', '.join(names[:SHOWN])}"
    ids = schema.field(0).type
    if not (pa.types.is_fixed_size_list(ids) and ids.list_size > 0 and pa.types.is_integer(ids.value_type)):
        return f"input_ids are {ids}"
    wrong = [name for name, kind in PIECE_TYPES.items() if schema.field(name).type != pa.list_(kind)]
    return f"{wrong[0]} are {schema.field(wrong[0]).type}" if wrong else ""


def data_files(folder: Path) -> list[dict[str, Any]]:
    """Name ("filename") and rows ("rows", if it was made by a ptk that counted them) of each file of rows, in order.

    Raises:
        DataError: there are none, or the list of them is damaged.
    """
    path = folder / "state.json"
    if not path.is_file():
        raise DataError(f"No packed rows in {folder}.", "Prepare some first: ptk prepare data.txt")
    try:
        files: list[dict[str, Any]] = RowFiles.model_validate(read_json(path)).model_dump(exclude_unset=True)["files"]
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} is damaged at {where}: {first['msg']}.", REMAKE) from problem
    return files


def _views(batch: pa.RecordBatch) -> Block:
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
    except PermissionError as error:
        raise DataError(*denied(error)) from error
    except (pa.ArrowInvalid, ValueError, IndexError, OSError) as error:
        raise DataError(f"The rows in {folder} can't be read: {error}.", "Make them again: ptk prepare") from error
