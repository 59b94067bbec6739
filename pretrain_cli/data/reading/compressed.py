"""Decompresses bz2, xz and zstd streams to their end, where the libraries pass over what is cut off or can't be read.

Python's bz2 and lzma pass over what follows a stream and isn't one, and zstandard takes a file that is cut short for a
whole one: text would be lost without a word.
"""

from __future__ import annotations

import bz2
import io
import lzma
from typing import IO, Any, cast

BLOCK_BYTES = 1 << 16
ZSTD_MAGIC, SKIPPABLE = 0xFD2FB528, 0x184D2A50
ENDED = "Compressed file ended before the end-of-stream marker was reached"


def decompressed(stream: IO[bytes], compression: str) -> IO[bytes]:
    """A stream's bytes, decompressed as they are read; reading raises EOFError or OSError where it is damaged."""
    if compression != "zstd":
        return cast("IO[bytes]", io.BufferedReader(_Streams(stream, compression), BLOCK_BYTES))
    import zstandard

    # `zstd --long` needs up to 2 GB, as each file says; without the limit named here it refuses from 128 MB on.
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    reader = decompressor.stream_reader(cast("IO[bytes]", _ZstdFrames(stream)), read_across_frames=True)
    return cast("IO[bytes]", io.BufferedReader(reader, 1 << 20))


class _Streams(io.RawIOBase):
    """The bytes of bz2 or xz streams, one after the other; zeros between them fill up blocks."""

    def __init__(self, source: IO[bytes], compression: str) -> None:
        self._source, self._compression, self._rest, self._begun = source, compression, b"", False
        self._decompressor = self._new()

    def _new(self) -> Any:
        return bz2.BZ2Decompressor() if self._compression == "bz2" else lzma.LZMADecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decompressor.eof:
                self._rest, self._begun, self._decompressor = self._decompressor.unused_data, False, self._new()
            if not self._begun:
                self._rest = self._rest.lstrip(b"\0")
            if not self._rest and self._decompressor.needs_input and not (block := self._source.read(BLOCK_BYTES)):
                if self._begun:
                    raise EOFError(ENDED)
                return 0
            elif not self._rest and self._decompressor.needs_input:
                self._rest = block
                continue
            self._begun = True
            given: bytes = self._decompressor.decompress(self._rest, len(buffer))
            self._rest = b""
            if given:
                buffer[: len(given)] = given
                return len(given)

    def close(self) -> None:
        self._source.close()
        super().close()


class _ZstdFrames:
    """Passes zstd frames on, and counts their blocks (RFC 8878), so that a missing end is noticed."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._held, self._skipped = source, b"", 0
        self._step, self._checksum = "magic", 0

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        if block:
            self._follow(block)
        elif size and (self._skipped or self._held or self._step != "magic"):
            raise EOFError(ENDED)
        return block

    def close(self) -> None:
        self._source.close()

    def _follow(self, block: bytes) -> None:
        at = 0
        while at < len(block):
            if self._skipped:
                passed = min(self._skipped, len(block) - at)
                self._skipped -= passed
                at += passed
                continue
            needed = {"magic": 4, "size": 4, "header": 1, "block": 3}[self._step] - len(self._held)
            self._held += block[at : at + needed]
            at += needed
            if len(block) >= at:
                number, self._held = int.from_bytes(self._held, "little"), b""
                self._take(number)

    def _take(self, number: int) -> None:
        if self._step == "magic":  # the decompressor says what is wrong with another one
            self._step = "size" if number & ~15 == SKIPPABLE else "header"
        elif self._step == "size":
            self._step, self._skipped = "magic", number
        elif self._step == "header":
            single, self._checksum = number >> 5 & 1, 4 * (number >> 2 & 1)
            content = (single, 2, 4, 8)[number >> 6]
            self._step, self._skipped = "block", (1 - single) + (0, 1, 2, 4)[number & 3] + content
        else:
            last, repeated, size = number & 1, number >> 1 & 3 == 1, number >> 3
            self._skipped = (1 if repeated else size) + (self._checksum if last else 0)
            self._step = "magic" if last else "block"
