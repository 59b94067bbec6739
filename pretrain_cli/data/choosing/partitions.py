"""Brings records with equal keys together on disk, so that not all of them need be in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

RUN_RECORDS = 1 << 19
"""Records held before they are written, and about as many as a partition has."""
Records = npt.NDArray[Any]


class Partitions:
    """Takes records with a 64-bit key each, and gives them back in partitions by key, each in the order it came in.

    What comes in is sorted by partition in runs of bounded size, one after the other in a file of ``folder`` that is
    removed in the end; a partition is then read from all runs. Few records never leave the memory.

    Args:
        folder: for the file.
        dtype: of a record.
        expected: records in all, about.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], expected: int) -> None:
        self._folder, self._dtype = folder, dtype
        self._bits = max(0, int(np.ceil(np.log2(max(1, expected) / RUN_RECORDS))))
        self._held: list[tuple[npt.NDArray[np.uint64], Records]] = []
        self._held_records = self._written = 0
        self._runs: list[npt.NDArray[np.int64]] = []
        self._file: Any = None

    def __enter__(self) -> Partitions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, keys: npt.NDArray[np.uint64], records: Records) -> None:
        """More records; keys should be spread evenly, as hashes are."""
        self._held.append((keys, records))
        self._held_records += len(records)
        if self._bits and self._held_records >= RUN_RECORDS:
            self._write_run()

    def _write_run(self) -> None:
        keys, records = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        numbers = (keys >> np.uint64(64 - self._bits)).astype(np.int64)
        counts = np.bincount(numbers, minlength=1 << self._bits)
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._file.write(records[np.argsort(numbers, kind="stable")].tobytes())
        self._runs.append(self._written + np.concatenate([[0], np.cumsum(counts)]))
        self._written += len(records)
        self._held, self._held_records = [], 0

    def __iter__(self) -> Iterator[Records]:
        """The partitions; all records with one key are in the same."""
        if not self._bits:
            yield np.concatenate([records for _, records in self._held]) if self._held else np.empty(0, self._dtype)
            return
        if self._held:
            self._write_run()
        self._file.flush()
        width = self._dtype.itemsize
        for number in range(1 << self._bits):
            parts = []
            for ends in self._runs:
                self._file.seek(int(ends[number]) * width)
                parts.append(self._file.read(int(ends[number + 1] - ends[number]) * width))
            yield np.frombuffer(b"".join(parts), self._dtype)
