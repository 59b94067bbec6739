"""Reads the files in a tar or zip archive, one after the other; nothing is unpacked to the disk."""

from __future__ import annotations

import functools
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from pretrain_cli.data.reading.documents import UNREADABLE_HINT, UNREADABLE_MEMBER, Record, Rejected
from pretrain_cli.data.reading.input_files import (
    InputFile,
    Span,
    check_bomb,
    decompress,
    kind_of,
    open_bytes,
    read_at_most,
)
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.splits import left_out_of_archive, may_be_left_out
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import byte_size, count_of

MOST_HEADER_BYTES = 1 << 24
"""Of what stands between two files in a tar: names, attributes, folders and links have 512 bytes each, or some more."""
MOST_ZIP_BYTES = 1 << 30
"""Of a zip that is held in memory, as one from standard input is: its list of files is at its end."""
IN_MEMORY = {"parquet", "arrow"}
"""Formats whose readers go back and forth in the file."""

ReadMember = Callable[[IO[bytes], Span, ReadSettings], Iterator[Record]]
Find = Callable[[str], tuple[ReadMember | None, str, str]]


@dataclass
class _Members:
    """Counts of an archive: files read, and left out, by kind."""

    read: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def leave_out(self, kind: str) -> None:
        self.left_out[kind] = self.left_out.get(kind, 0) + 1

    def told(self, name: str) -> str:
        left = ", ".join(f"{kind} {number:,}" for kind, number in self.left_out.items())
        return f"{name}: {count_of(self.read, 'file')} in it read{f'; left out: {left}' if left else ''}."


def read_archive(stream: IO[bytes], span: Span, settings: ReadSettings, find: Find) -> Iterator[Record]:
    """The records of all files in an archive that have an ending of a known format.

    Args:
        stream: the archive, decompressed.
        span: the archive's file.
        settings: how its files are read.
        find: (reader, format, compression) for a file's name; no reader for an ending that isn't known.

    Raises:
        DataError: it is damaged or encrypted, or holds far more than its own size.
    """
    archive, members = span.file, _Members()
    reasons: dict[str, str] | None = None
    for name, size, open_member in _walk(stream, archive, members):
        members.bytes += size
        check_bomb(archive, members.bytes)
        reader, format, compression = find(name)
        if reader is None or _is_hidden(name):
            members.leave_out("hidden" if _is_hidden(name) else kind_of(name) or "no ending")
            continue
        if may_be_left_out(name):
            reasons = _reasons(archive) if reasons is None else reasons
            if name in reasons:
                members.leave_out(reasons[name].replace("_", " "))
                continue
        members.read += 1
        own = InputFile(archive.path, size, 0, format, compression, archive.source, f"{archive.name}/{name}")
        yield from _usable(_member(reader, open_member, own, settings), own)
    settings.notes.append(members.told(archive.name))


def _reasons(archive: InputFile) -> dict[str, str]:
    """The files in an archive that a data set has beside its train split, with the reason why they aren't read."""
    with open_bytes(archive) as stream:
        names = [name for name, _, _ in _walk(stream, archive, _Members()) if not _is_hidden(name)]
    return left_out_of_archive(archive.path, names)


def _member(
    reader: ReadMember, open_member: Callable[[], IO[bytes]], own: InputFile, settings: ReadSettings
) -> Iterator[Record]:
    content = decompress(open_member(), own.compression)
    if own.format in IN_MEMORY:
        raw = read_at_most(content, settings.max_record_bytes)
        if raw is None:
            yield settings.too_long(own.name, 0, 0, settings.max_record_bytes)
            return
        content = io.BytesIO(raw)
    yield from reader(content, Span(own), settings)


def _usable(records: Iterator[Record], own: InputFile) -> Iterator[Record]:
    """The records of one file; the last one says that the rest can't be read, so that the others can be."""
    used = False
    try:
        for record in records:
            used = used or not isinstance(record, Rejected)
            yield record
    except (DataError, zipfile.BadZipFile, NotImplementedError) as error:
        message = error.message if isinstance(error, DataError) else f"{own.name} can't be read: {error}."
        rest = " What comes before is used." if used else ""
        yield Rejected(own.name, 0, 0, 0 if used else max(0, own.size), UNREADABLE_MEMBER, message + rest)


def _is_hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    hidden = any(part.startswith((".", "~$")) and part not in (".", "..") for part in parts)
    return hidden or "__MACOSX" in parts or "__pycache__" in parts


Member = tuple[str, int, Callable[[], IO[bytes]]]


class _Metered:
    """A tar's bytes as `tarfile` reads them: no more than a header may take beyond the end of the last file.

    A long name, a list of holes or of attributes is read into memory whole, whatever size its header gives.
    """

    def __init__(self, stream: IO[bytes], archive: InputFile) -> None:
        self._stream, self._archive = stream, archive
        self._place, self.end = 0, 0

    def read(self, count: int) -> bytes:
        content = self._stream.read(count)
        self._place += len(content)
        check_bomb(self._archive, self._place)
        if self._place > self.end + MOST_HEADER_BYTES:
            raise DataError(
                f"{self._archive.name} can't be read: a header in it takes over {byte_size(MOST_HEADER_BYTES)}.",
                UNREADABLE_HINT,
            )
        return content


def _walk(stream: IO[bytes], archive: InputFile, members: _Members) -> Iterator[Member]:
    return (_tar_members if archive.format == "tar" else _zip_members)(stream, archive, members)


def _tar_members(stream: IO[bytes], file: InputFile, members: _Members) -> Iterator[Member]:
    metered = _Metered(stream, file)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", metered), mode="r|") as archive:
            for entry in archive:
                cast(Any, archive).members.clear()  # it would keep every header
                metered.end = archive.offset
                if entry.isfile():
                    yield entry.name, entry.size, functools.partial(_tar_content, archive, entry)
                elif not entry.isdir():
                    members.leave_out("links and devices")
    except RecursionError as error:
        raise DataError(f"{file.name} can't be read: its headers belong to each other.", UNREADABLE_HINT) from error
    except tarfile.TarError as error:
        raise DataError(f"{file.name} can't be read: {error}.", UNREADABLE_HINT) from error


def _tar_content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    return cast("IO[bytes]", archive.extractfile(entry))


def _zip_members(stream: IO[bytes], file: InputFile, members: _Members) -> Iterator[Member]:
    name, seekable = file.name, stream
    if file.compression or not stream.seekable():  # to go back in compressed bytes is to read them all again
        content = read_at_most(stream, MOST_ZIP_BYTES)
        if content is None:
            raise DataError(
                f"{name} holds over {byte_size(MOST_ZIP_BYTES)} and can't be read from the middle.",
                "Save or unpack it as a plain .zip file first.",
            )
        seekable = io.BytesIO(content)
    try:
        with zipfile.ZipFile(seekable) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                if entry.flag_bits & 1:
                    raise DataError(f"{name} is encrypted ('{entry.filename}').", "Unpack it and name the folder.")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    members.leave_out("links and devices")
                    continue
                yield entry.filename, entry.file_size, functools.partial(archive.open, entry)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{name} can't be read: {error}.", UNREADABLE_HINT) from error
