"""Reads plain text: the file is one document, or a separator says where each ends."""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.documents import Document, Record, Rejected, make_batch
from pretrain_cli.data.reading.input_files import Span, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_blocks import decode_stream


def read_text(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The document, or the documents between separators. One longer than a block comes in parts."""
    path = span.file.path
    with open_bytes(span.file) as stream:
        decoded = decode_stream(stream, settings.encoding, path)
        if decoded is None:
            yield Rejected(path, 0, 0, 0, "empty")
            return
        encoding, blocks = decoded
        if encoding.guessed:
            settings.notes.append(f"{path} isn't UTF-8: read as {encoding.name}.")
        settings.skip("byte_order_mark", encoding.mark_bytes)
        if settings.separator:
            yield from _separated(blocks, path, settings)
        else:
            yield from _one_document(blocks, path, encoding.mark_bytes)


def _one_document(blocks: Iterator[str], path: str, offset: int) -> Iterator[Record]:
    previous = next(blocks, "")
    for block in blocks:
        yield Document(previous, path, 0, offset, final=False)
        previous = block
    if previous:
        yield Document(previous, path, 0, offset)


def _separated(blocks: Iterator[str], path: str, settings: ReadSettings) -> Iterator[Record]:
    separator, held, in_parts = settings.separator, "", False
    size = len(separator.encode())
    for block in blocks:
        *texts, held = (held + block).split(separator)
        settings.skip("document_separator", size * len(texts))
        if texts and in_parts:
            yield Document(texts.pop(0), path)
            in_parts = False
        if batch := make_batch(texts, path):
            yield batch
        # Of a document longer than a block all but the end is a part: the end may be half a separator.
        if len(held) > input_files.BLOCK_BYTES + len(separator):
            cut = len(held) - len(separator) + 1
            yield Document(held[:cut], path, final=False)
            held, in_parts = held[cut:], True
    if held or in_parts:
        yield Document(held, path)
