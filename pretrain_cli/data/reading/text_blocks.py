"""Decodes a stream of bytes to text, block by block."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO, Any, cast

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.binary import check_block
from pretrain_cli.data.reading.charsets import Encoding, damaged, find_encoding, is_western
from pretrain_cli.errors import DataError


def decode_stream(stream: IO[bytes], wanted: str, path: str) -> tuple[Encoding, Iterator[str]] | None:
    """The encoding of a stream, and its text in blocks; None for an empty one.

    Args:
        stream: at its start.
        wanted: an encoding's name, or "auto".
        path: for error messages.

    Raises:
        DataError: the bytes aren't text, or ``wanted`` isn't an encoding.
    """
    head = input_files.read_fully(stream, input_files.BLOCK_BYTES)
    if not head:
        return None
    encoding = find_encoding(head, wanted, path, len(head) < input_files.BLOCK_BYTES)
    return encoding, _blocks(stream, head[encoding.mark_bytes :], encoding, path)


def _blocks(stream: IO[bytes], head: bytes, encoding: Encoding, path: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding.name)()
    block, offset = head, encoding.mark_bytes
    while True:
        following = input_files.read_fully(stream, input_files.BLOCK_BYTES)
        held = len(decoder.getstate()[0])  # of a character that began in the last block
        try:
            text = decoder.decode(block, not following)
        except UnicodeDecodeError as error:
            raise _undecodable(path, encoding, offset - held + error.start, block[error.start :]) from error
        if text:
            check_block(text, path, offset)
            yield text
        offset += len(block)
        if not following:
            return
        block = following


def decode_all(raw: bytes, wanted: str, path: str) -> tuple[Encoding, str]:
    """The encoding of a whole file, and its text.

    Raises:
        DataError: the bytes aren't text, or ``wanted`` isn't an encoding.
    """
    encoding = find_encoding(raw[: input_files.BLOCK_BYTES], wanted, path, len(raw) <= input_files.BLOCK_BYTES)
    try:
        return encoding, raw[encoding.mark_bytes :].decode(encoding.name)
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding, encoding.mark_bytes + error.start) from error


def in_utf8(stream: IO[bytes], encoding: Encoding, left: int, path: str) -> IO[bytes]:
    """The next ``left`` bytes of a stream in another encoding, as UTF-8; reading raises DataError for damage."""
    return cast("IO[bytes]", io.BufferedReader(_InUtf8(stream, encoding, left, path), input_files.BLOCK_BYTES))


class _InUtf8(io.RawIOBase):
    def __init__(self, stream: IO[bytes], encoding: Encoding, left: int, path: str) -> None:
        self._stream, self._left, self._ready, self._done = stream, left, b"", 0
        self._encoding, self._path = encoding, path
        self._decoder = codecs.getincrementaldecoder(encoding.name)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._left > 0:
            block = self._stream.read(min(self._left, len(buffer)))
            held = len(self._decoder.getstate()[0])
            self._left = self._left - len(block) if block else 0
            try:
                self._ready = self._decoder.decode(block, not block).encode()
            except UnicodeDecodeError as error:
                raise _undecodable(self._path, self._encoding, self._done - held + error.start) from error
            self._done += len(block)
        given = self._ready[: len(buffer)]
        self._ready = self._ready[len(given) :]
        buffer[: len(given)] = given
        return len(given)


def _undecodable(path: str, encoding: Encoding, at: int, rest: bytes = b"") -> DataError:
    if encoding.guessed:
        return DataError(
            f"{path} was read as {encoding.name}, by a guess from its beginning, but isn't at byte {at:,}.",
            "If you know its encoding, set it: --set data.encoding=NAME. Or skip such files with --on-error skip.",
        )
    if encoding.name == "utf-8" and is_western(rest):
        return DataError(
            f"{path} is UTF-8 up to byte {at:,}, but not after it.",
            "If one encoding fits all of it, such as cp1252, set it: --set data.encoding=cp1252. "
            "Or skip such files with --on-error skip.",
        )
    return damaged(path, "UTF-8" if encoding.name == "utf-8" else encoding.name, at)
