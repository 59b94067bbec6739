"""Holds the input's files in columns, about 60 bytes each: as objects, five million of them would take 5 GB."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import xxhash

from pretrain_cli.data.reading.input_files import InputFile, kind_of

ENDS_PATH = {"/", os.sep}


class FileTable(Sequence[InputFile]):
    """Files in order; an `InputFile` is made when one is asked for.

    Attributes:
        sizes: bytes of each file as stored, or what `InputFile.size` says.
        modified_ns: of each.
        changed_ns: when the system last changed anything about each, its times included; 0 where that isn't known.
    """

    def __init__(self, files: Iterable[InputFile] = ()) -> None:
        self.sizes, self.modified_ns, self.changed_ns = array("q"), array("q"), array("q")
        self._folders: dict[str, int] = {}
        self._kinds: dict[tuple[str, str, int, str], int] = {}
        self._folder_names: list[str] = []
        self._kind_names: list[tuple[str, str, int, str]] = []
        self._folder_of, self._kind_of_file = array("i"), array("i")
        self._names, self._ends = bytearray(b"/"), array("q", [0])  # a "/" before each name, and after the last
        self._shown: dict[int, str] = {}
        for file in files:
            self.append(file)

    def folder(self, path: str) -> int:
        """The number of a folder; ``path`` ends as the paths of its files go on, with a slash."""
        if path not in self._folders:
            self._folders[path] = len(self._folder_names)
            self._folder_names.append(path)
        return self._folders[path]

    def kind(self, format: str, compression: str, source: int, ending: str) -> int:
        """The number of a format, compression, source and ending, as `kind_of` tells it."""
        key = (format, compression, source, ending)
        if key not in self._kinds:
            self._kinds[key] = len(self._kind_names)
            self._kind_names.append(key)
        return self._kinds[key]

    def add(self, folder: int, name: str, kind: int, size: int, modified_ns: int, changed_ns: int) -> None:
        """One more file, its folder and kind by their numbers."""
        self._folder_of.append(folder)
        self._kind_of_file.append(kind)
        self._names += name.encode("utf-8", "surrogatepass") + b"/"  # as any system's names come back
        self._ends.append(len(self._names) - 1)
        self.sizes.append(size)
        self.modified_ns.append(modified_ns)
        self.changed_ns.append(changed_ns)

    def append(self, file: InputFile, changed_ns: int = 0) -> None:
        """One more file."""
        cut = 1 + max(file.path.rfind(end) for end in ENDS_PATH)
        folder = self.folder(file.path[:cut])
        kind = self.kind(file.format, file.compression, file.source, kind_of(file.name))
        if file.shown:
            self._shown[len(self)] = file.shown
        self.add(folder, file.path[cut:], kind, file.size, file.modified_ns, changed_ns)

    def extend(self, files: Iterable[InputFile]) -> None:
        """More files, with the times of their changes where ``files`` is a table too."""
        if isinstance(files, FileTable):
            for file, changed_ns in zip(files, files.changed_ns, strict=True):
                self.append(file, changed_ns)
        else:
            for file in files:
                self.append(file)

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> InputFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[InputFile]: ...
    def __getitem__(self, index: int | slice) -> InputFile | list[InputFile]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        format, compression, source, _ = self._kind_names[self._kind_of_file[place]]
        return InputFile(
            self.path(place),
            self.sizes[place],
            self.modified_ns[place],
            format,
            compression,
            source,
            self._shown.get(place, ""),
        )

    def __iter__(self) -> Iterator[InputFile]:
        return map(self.__getitem__, range(len(self)))

    def path(self, place: int) -> str:
        """The path of one file."""
        return self._folder_names[self._folder_of[place]] + self._own_name(place)

    def _own_name(self, place: int) -> str:
        return self._names[self._ends[place] + 1 : self._ends[place + 1]].decode("utf-8", "surrogatepass")

    def name(self, place: int) -> str:
        """What one file is called in messages."""
        return self._shown.get(place) or self.path(place)

    def format(self, place: int) -> str:
        """The format of one file."""
        return self._kind_names[self._kind_of_file[place]][0]

    def kind_numbers(self) -> npt.NDArray[np.int32]:
        """[n]: a number for each file, the same for those of one source and ending."""
        numbers: dict[tuple[int, str], int] = {}
        of_kind = [numbers.setdefault((source, ending), len(numbers)) for _, _, source, ending in self._kind_names]
        return np.array(of_kind, np.int32).take(self._column(self._kind_of_file))

    def endings(self) -> dict[str, tuple[int, int]]:
        """Ending → (files, bytes of those whose size is known)."""
        kinds, found = self._column(self._kind_of_file), dict[str, tuple[int, int]]()
        files = np.bincount(kinds, minlength=len(self._kind_names)).tolist()
        sizes = np.bincount(kinds, np.maximum(self._column(self.sizes), 0), minlength=len(self._kind_names))
        for (_, _, _, ending), many, size in zip(self._kind_names, files, sizes.tolist(), strict=True):
            before = found.get(ending, (0, 0))
            found[ending] = (before[0] + many, before[1] + int(size))
        return {ending: own for ending, own in found.items() if own[0]}

    def named_like(self, pattern: re.Pattern[bytes], root: str = "") -> list[int]:
        """The places of the files whose folder below ``root``, or own name, ``pattern`` finds; each is between "/"."""
        below = (f"/{folder.removeprefix(root)}/".replace(os.sep, "/") for folder in self._folder_names)
        folders = [at for at, name in enumerate(below) if pattern.search(name.encode("utf-8", "surrogatepass"))]
        starts = [found.start() for found in pattern.finditer(self._names)]
        places = np.searchsorted(self._column(self._ends), np.array(starts, np.int64), side="right") - 1
        in_folders = np.flatnonzero(np.isin(self._column(self._folder_of), folders))
        return [int(place) for place in np.union1d(places, in_folders)]

    def of_formats(self, formats: Container[str]) -> list[int]:
        """The places of the files of some formats."""
        kinds = [number for number, (format, *_) in enumerate(self._kind_names) if format in formats]
        return np.flatnonzero(np.isin(self._column(self._kind_of_file), kinds)).tolist()

    def of_source(self, source: int) -> FileTable:
        """The files of one source."""
        if len({own for _, _, own, _ in self._kind_names}) == 1 and self._kind_names[0][2] == source:
            return self
        kinds = [number for number, kind in enumerate(self._kind_names) if kind[2] == source]
        return self.chosen(np.flatnonzero(np.isin(self._column(self._kind_of_file), kinds)).tolist())

    @staticmethod
    def _column(values: array[int]) -> npt.NDArray[Any]:
        return np.frombuffer(values, f"i{values.itemsize}") if values else np.empty(0, np.int64)

    def chosen(self, places: Iterable[int]) -> FileTable:
        """Some of the files, in the order of ``places``."""
        table = FileTable()
        for place in places:
            table.append(self[place], self.changed_ns[place])
        return table

    @property
    def total_bytes(self) -> int:
        """Of all files whose size is known."""
        return int(np.maximum(self._column(self.sizes), 0).sum())

    def stamp(self, *, with_changes: bool = True) -> str:
        """Names the list: the same for the same paths, sizes and times, and so, but for cunning, the same bytes.

        Without ``with_changes`` it is the same on another machine, or after a file got other permissions.
        """
        digest = xxhash.xxh3_128()
        for column in (self.sizes, self.modified_ns, self._folder_of, self._kind_of_file, self._ends):
            digest.update(column.tobytes())
        if with_changes:
            digest.update(self.changed_ns.tobytes())
        digest.update(self._names)
        digest.update(repr((self._folder_names, self._kind_names, sorted(self._shown.items()))).encode())
        return str(digest.hexdigest())

    def newest_ns(self) -> int:
        """The latest time at which a file was modified or changed."""
        return max((max(column) for column in (self.modified_ns, self.changed_ns) if column), default=0)


def as_table(files: Iterable[InputFile]) -> FileTable:
    """``files`` in columns."""
    return files if isinstance(files, FileTable) else FileTable(files)
