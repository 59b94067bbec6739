"""Opens the bytes of an input file, wherever it is and however it is compressed."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

STDIN = "-"
BLOCK_BYTES = 1 << 19
"""Text is read about this many bytes at a time."""


@dataclass(frozen=True)
class InputFile:
    """One file (or URL) to read. ``size`` is in bytes as stored, -1 where it can't be known.

    ``modified_ns``: of a URL, a number that follows from whatever its file system says about its version.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    compression: str = ""
    source: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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


def is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def open_bytes(file: InputFile) -> IO[bytes]:
    """The file's bytes, decompressed as they are read."""
    raw: IO[bytes]
    if file.path == STDIN:
        raw = sys.stdin.buffer
    elif is_url(file.path):
        import fsspec

        # fsspec's own files can't read a number of lines at a time.
        raw = io.BufferedReader(fsspec.open(file.path, "rb").open(), BLOCK_BYTES)
    else:
        raw = open(file.path, "rb")  # noqa: SIM115 - the caller closes it
    if file.compression == "gzip":
        import gzip

        return cast("IO[bytes]", gzip.open(raw))
    if file.compression == "bz2":
        import bz2

        return cast("IO[bytes]", bz2.open(raw))
    if file.compression == "xz":
        import lzma

        return cast("IO[bytes]", lzma.open(raw))
    if file.compression == "zstd":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast("IO[bytes]", io.BufferedReader(reader, 1 << 20))
    return raw


def can_seek(file: InputFile) -> bool:
    """Whether bytes from the middle of the file can be read without all that come before them."""
    if file.compression or file.path == STDIN or file.size < 0:
        return False
    if not file.path.startswith(("http://", "https://")):
        return True
    import fsspec

    return bool(fsspec.core.url_to_fs(file.path)[0].info(file.path).get("partial"))


def read_fully(stream: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes, fewer only at the end: a single ``read`` may give less."""
    blocks = []
    while size > 0 and (block := stream.read(size)):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)
