"""Opens the bytes of an input file, wherever it is and however it is compressed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import IO, Any, cast

STDIN = "-"
COMPRESSED_ENDINGS = ("gz", "bz2", "xz", "zst", "lzma", "zstd")
BLOCK_BYTES = 1 << 19
"""Text is read about this many bytes at a time."""
READ_BYTES = 1 << 24
"""A whole file is read this many bytes at a time: some streams take the memory for what they are asked for at once."""


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


def kind_of(path: str) -> str:
    """A file's ending, without that of a compression: "jsonl" of "a/b.jsonl.gz"; empty where it has none."""
    place = path.partition("?")[0] if is_url(path) else path
    name = place.rstrip("/").rpartition("/")[2].lower()
    if "." in name and name.rpartition(".")[2] in COMPRESSED_ENDINGS:
        name = name.rpartition(".")[0]
    return name.rpartition(".")[2] if "." in name else ""


def number_kinds(files: Iterable[InputFile]) -> list[int]:
    """A number for each file, the same for those of one source and kind."""
    numbers: dict[tuple[int, str], int] = {}
    return [numbers.setdefault((file.source, kind_of(file.path)), len(numbers)) for file in files]


def is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def open_bytes(file: InputFile) -> IO[bytes]:
    """The file's bytes, decompressed as they are read."""
    if file.compression == "zstd":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(_open_raw(file), read_across_frames=True)
        return cast("IO[bytes]", io.BufferedReader(reader, 1 << 20))
    if file.compression:
        module = import_module({"xz": "lzma"}.get(file.compression, file.compression))
        # Given a path, it closes the file in the end; given an open file, it leaves that open.
        source = _open_raw(file) if file.path == STDIN or is_url(file.path) else file.path
        return cast("IO[bytes]", module.open(source))
    return _open_raw(file)


def _open_raw(file: InputFile) -> IO[bytes]:
    if file.path == STDIN:
        return sys.stdin.buffer
    if is_url(file.path):
        import fsspec

        # fsspec's own files can't read a number of lines at a time.
        return io.BufferedReader(fsspec.open(file.path, "rb").open(), BLOCK_BYTES)
    return open(file.path, "rb")


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
    while size > 0 and (block := stream.read(min(size, READ_BYTES))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def read_at_most(stream: IO[bytes], limit: int) -> bytes | None:
    """All that is left of ``stream``; None if that is more than ``limit`` bytes, of which no more are in memory."""
    content = read_fully(stream, limit + 1)
    return content if len(content) <= limit else None
