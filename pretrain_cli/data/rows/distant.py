"""Reads packed rows of which the files lie in object storage, a few files on this machine at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np

from pretrain_cli.data.rows.reader import Block, Rows, data_files, open_blocks
from pretrain_cli.errors import DataError
from pretrain_cli.records import FileRecord, damaged_files
from pretrain_cli.remote import RemoteFolder


class DistantRows(Rows):
    """Rows whose files are fetched when they are first needed, each compared with its record.

    Args:
        folder: of the rows on this machine; the small files are here.
        remote: the same folder in object storage.
        records: name → size and hash, of the files of rows.

    Raises:
        DataError: they were made by a ptk that didn't count the rows of each file.
        StorageError: a file is missing or damaged, or the storage doesn't answer.
    """

    def __init__(self, folder: Path, remote: RemoteFolder, records: Mapping[str, FileRecord]) -> None:
        self.folder, self.remote, self.records = Path(folder), remote, dict(records)
        entries = data_files(self.folder)
        self._names = [str(entry["filename"]) for entry in entries]
        if not all("rows" in entry for entry in entries):
            raise DataError(
                "These rows were made by an older ptk, so they can't be brought file by file.",
                "Prepare the text again, or set train.shuffle_files=0 to fetch all rows first.",
            )
        self.file_rows = tuple(int(entry["rows"]) for entry in entries)
        self._length = sum(self.file_rows)
        self._opening = threading.Lock()
        self._coming: Future[None] | None = None
        self._before: tuple[int, ...] = ()
        blocks, schema = open_blocks(self._here(0))
        self._take_shape(schema, blocks[0] if blocks else None)
        sizes = [-(-rows // self._block_rows) for rows in self.file_rows]
        self._first_block = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self._blocks = [None] * self._first_block[-1]

    def __reduce__(self) -> tuple[type[Rows], tuple[Path, RemoteFolder, Mapping[str, FileRecord]]]:  # type: ignore[override]
        return DistantRows, (self.folder, RemoteFolder(self.remote.url), self.records)

    def keep(self, now: Collection[int], following: Collection[int]) -> None:
        """Have the files ``now`` here, fetch ``following`` meanwhile, and remove all others but those of the last call.

        Raises:
            StorageError: a file is missing or damaged, or the storage doesn't answer.
        """
        if self._coming is not None:
            self._coming.result()
        for file in now:
            self._here(file)
        wanted = {*now, *following, *self._before, 0}  # whoever opens the rows looks at the first
        for file in set(range(len(self._names))) - wanted:
            self._let_go(file)
        self._before = tuple(now)
        pool = ThreadPoolExecutor(1)
        self._coming = pool.submit(self._fetch, tuple(following))
        pool.shutdown(wait=False)

    def _fetch(self, files: tuple[int, ...]) -> None:
        for file in files:
            self._here(file)

    def _here(self, file: int) -> Path:
        """The path of a file, which is fetched if it isn't here as it should be; one process of a machine does that."""
        name = self._names[file]
        path, record = self.folder / name, self.records[name]
        with filelock.FileLock(self._beside(name, "lock")):
            checked = self._beside(name, record.hash)
            if not (checked.is_file() and path.is_file()) and damaged_files(self.folder, {name: record}, read=True):
                self.remote.get(name, path, record)
            checked.touch()  # its bytes were compared: the next process needn't
        return path

    def _beside(self, name: str, ending: str) -> Path:
        """A file that says something of another, not among the rows."""
        return self.folder.parent / f".{self.folder.name}-{name}.{ending}"

    def _let_go(self, file: int) -> None:
        name = self._names[file]
        for number in range(self._first_block[file], self._first_block[file + 1]):
            self._blocks[number] = None
        with contextlib.suppress(OSError):  # Windows keeps a file that is mapped
            self._beside(name, self.records[name].hash).unlink(missing_ok=True)
            (self.folder / name).unlink(missing_ok=True)

    def _block(self, number: int) -> Block:
        found = self._blocks[number]
        if found is None:
            with self._opening:
                file = int(np.searchsorted(self._first_block, number, side="right")) - 1
                first = self._first_block[file]
                blocks, _ = open_blocks(self._here(file))
                self._blocks[first : first + len(blocks)] = blocks
                found = blocks[number - first]
        return found
