"""Decodes a stream of bytes to text, block by block."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import IO

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.charsets import Encoding, find_encoding
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
        try:
            text = decoder.decode(block, not following)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} isn't {encoding.name} at byte {offset + error.start:,}.",
                "Set its encoding: --set data.encoding=latin-1",
            ) from error
        if text:
            yield text
        offset += len(block)
        if not following:
            return
        block = following
