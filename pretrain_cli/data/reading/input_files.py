"""Opens the bytes of an input file, wherever it is and however it is compressed."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

from pretrain_cli.data.reading.compressed import decompressed
from pretrain_cli.errors import DataError
from pretrain_cli.file_systems import fsspec_module
from pretrain_cli.formatting import byte_size
from pretrain_cli.small_files import no_wait

STDIN = "-"
PIPE = -2
"""The size of a pipe, which gives its bytes once."""
COMPRESSED_ENDINGS = ("gz", "bz2", "xz", "zst", "lzma", "zstd")
TAR_ENDINGS = {"tgz": "gzip", "tbz2": "bz2", "tbz": "bz2", "txz": "xz", "tzst": "zstd"}
"""Short endings of compressed tar archives → compression."""
MOST_TIMES = 200
"""How many times its bytes an archive or table may hold: text packs to a fifth, logs to a fiftieth, bombs to less."""
LEAST_BOMB_BYTES = 1 << 30
TIMES_COMPRESSED = 3.0
"""How much longer text mostly is than its compressed file."""
BLOCK_BYTES = 1 << 19
"""Text is read about this many bytes at a time."""
READ_BYTES = 1 << 24
"""A whole file is read this many bytes at a time: some streams take the memory for what they are asked for at once."""


class InputFile(NamedTuple):
    """One file (or URL) to read. ``size`` is in bytes as stored, -1 where it can't be known.

    ``modified_ns``: of a URL, a number that follows from whatever its file system says about its version.
    ``shown``: what it is called in messages, if not by its path: a copy of standard input, or a file in an archive.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    compression: str = ""
    source: int = 0
    shown: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.shown or self.path

    @property
    def likely_bytes(self) -> float:
        """About as many bytes of text as it holds; 0 where its size can't be known."""
        return max(0, self.size) * (TIMES_COMPRESSED if self.compression else 1.0)


@dataclass(frozen=True)
class Span:
    """A file, or the lines of it that begin in bytes ``start`` to ``end`` (-1: to the end)."""

    file: InputFile
    start: int = 0
    end: int = -1

    @property
    def size(self) -> int:
        """Bytes as stored; negative where it can't be known."""
        return (self.file.size if self.end < 0 else self.end) - self.start


def kind_of(path: str) -> str:
    """A file's ending, without that of a compression: "jsonl" of "a/b.jsonl.gz"; empty where it has none."""
    place = path.partition("?")[0] if is_url(path) else path
    name = place.rstrip("/").rpartition("/")[2].lower()
    if "." in name and name.rpartition(".")[2] in COMPRESSED_ENDINGS:
        name = name.rpartition(".")[0]
    kind = name.lstrip(".").rpartition(".")[2] if "." in name.lstrip(".") else ""
    return "tar" if kind in TAR_ENDINGS else kind


def plain_ending(name: str) -> str:
    """What follows the last dot of a file's own name where that alone is its kind; empty where more must be seen."""
    stem, _, ending = name.rpartition(".")
    low = ending.lower()
    plain = stem.strip(".") and low not in COMPRESSED_ENDINGS and low not in TAR_ENDINGS and "?" not in name
    return low if plain else ""


def is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def open_input(path: str) -> IO[bytes]:
    """An input on this machine, as it is.

    Raises:
        DataError: it was a file when it was found, and now is a pipe or a device, which may have no end.
        OSError: it can't be read.
    """
    file = open(path, "rb", opener=no_wait)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path} changed while it was being read.", "Run the command again once the input is complete.")
    return file


def open_bytes(file: InputFile) -> IO[bytes]:
    """The file's bytes, decompressed as they are read; reading raises DataError where they are far too many."""
    if not file.compression:
        return _open_raw(file)
    if file.compression == "gzip" and file.path != STDIN and not is_url(file.path):
        # Given a path, it closes the file in the end; given an open file, it leaves that open.
        open_input(file.path).close()
        unpacked = cast("IO[bytes]", gzip.open(file.path))  # noqa: SIM115
    else:
        unpacked = decompress(_open_raw(file), file.compression)
    return cast("IO[bytes]", io.BufferedReader(_Unpacked(unpacked, file), BLOCK_BYTES))


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, measured as it is read."""

    def __init__(self, stream: IO[bytes], file: InputFile) -> None:
        self._stream, self._file, self._count = cast("io.BufferedReader", stream), file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto1(buffer)
        self._count += count
        check_bomb(self._file, self._count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def decompress(stream: IO[bytes], compression: str) -> IO[bytes]:
    """A stream's bytes, decompressed as they are read."""
    if compression == "gzip":
        return cast("IO[bytes]", gzip.open(stream))
    return decompressed(stream, compression) if compression else stream


def _open_raw(file: InputFile) -> IO[bytes]:
    if file.path == STDIN:
        return sys.stdin.buffer
    if is_url(file.path):
        fsspec = fsspec_module()
        # fsspec's own files can't read a number of lines at a time.
        return io.BufferedReader(fsspec.open(file.path, "rb").open(), BLOCK_BYTES)
    return open_input(file.path)


def can_seek(file: InputFile) -> bool:
    """Whether bytes from the middle of the file can be read without all that come before them."""
    if file.compression or file.path == STDIN or file.size < 0:
        return False
    if not file.path.startswith(("http://", "https://")):
        return True
    return bool(fsspec_module().core.url_to_fs(file.path)[0].info(file.path).get("partial"))


def with_head(stream: IO[bytes], size: int) -> tuple[bytes, IO[bytes]]:
    """The next ``size`` bytes, fewer only at the end, and a stream that begins with them again.

    An error of a damaged stream comes after the bytes before it, when they are read from the new stream.
    """
    blocks: list[bytes] = []
    failure: Exception | None = None
    read = cast("Callable[[int], bytes]", getattr(stream, "read1", stream.read))
    try:
        while size > 0 and (block := read(min(size, READ_BYTES))):
            blocks.append(block)
            size -= len(block)
    except Exception as error:  # each compression has errors of its own
        failure = error
    head = b"".join(blocks)
    return head, cast("IO[bytes]", io.BufferedReader(_Rejoined(head, stream, failure), BLOCK_BYTES))


class _Rejoined(io.RawIOBase):
    """A head that was read already, and the stream that it was read from."""

    def __init__(self, head: bytes, rest: IO[bytes], failure: Exception | None) -> None:
        self._head, self._rest, self._failure = memoryview(head), rest, failure

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            block = bytes(self._head[: len(buffer)])
            self._head = self._head[len(block) :]
        elif self._failure is not None:
            raise self._failure
        else:
            block = self._rest.read1(len(buffer)) if hasattr(self._rest, "read1") else self._rest.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def read_fully(stream: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes, fewer only at the end: a single ``read`` may give less."""
    blocks = []
    while size > 0 and (block := stream.read(min(size, READ_BYTES))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def read_at_most(stream: IO[bytes], limit: int) -> bytes | None:
    """All that is left of ``stream``; None if that is more than ``limit`` bytes, of which no more are in memory."""
    content = read_fully(stream, limit + 1)
    return content if len(content) <= limit else None


def check_bomb(file: InputFile, unpacked: int) -> None:
    """Check what an archive, a table or a compressed text holds against its own size.

    Raises:
        DataError: it holds far more than text packs to.
    """
    if 0 < file.size * MOST_TIMES < unpacked and unpacked > LEAST_BOMB_BYTES:
        raise DataError(
            f"{file.name} has {byte_size(file.size)} and holds {byte_size(unpacked)} or more: it may be a bomb.",
            "If you know that it isn't, unpack it and name the folder, or write a table's texts as JSON lines.",
        )
