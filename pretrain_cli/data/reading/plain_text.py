"""Reads plain text: the file is one document, or a separator says where each ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from pretrain_cli.data.reading import input_files
from pretrain_cli.data.reading.delimited import read_delimited
from pretrain_cli.data.reading.documents import Document, Record, Rejected, make_batch
from pretrain_cli.data.reading.input_files import Span, with_head
from pretrain_cli.data.reading.json_records import read_json, read_jsonl
from pretrain_cli.data.reading.json_sniffing import JSON_KINDS, kind_of_json, starts_like_html, starts_like_json
from pretrain_cli.data.reading.rich_text import read_rich_text
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.table_sniffing import peek_table, table_of
from pretrain_cli.data.reading.text_blocks import decode_stream
from pretrain_cli.data.reading.text_column import SAMPLED_BYTES


def read_text(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The document, or the documents between separators. One longer than a block comes in parts.

    A text that is JSON, a page of HTML or a table is read as that, unless a separator is given: no one wants its
    braces, tags or separators in a model.
    """
    path = span.file.name
    if not settings.separator and starts_like_html(stream):
        settings.notes.append(f"{path} holds HTML: its main text is read.")
        yield from read_rich_text(stream, replace(span, file=span.file._replace(format="html")), settings)
        return
    if not settings.separator and starts_like_json(stream):
        head, stream = with_head(stream, SAMPLED_BYTES)
        if kind := kind_of_json(head, len(head) < SAMPLED_BYTES):
            settings.notes.append(f"{path} holds {JSON_KINDS[kind]}: each record is a document.")
            yield from (read_jsonl if kind == "jsonl" else read_json)(stream, span, settings)
            return
    if not settings.separator and peek_table(stream):
        head, stream = with_head(stream, SAMPLED_BYTES)
        table = table_of(head, len(head) < SAMPLED_BYTES)
        if table and table.text:
            settings.notes.append(f"{path} holds a table: each row is a document.")
            kind = "tsv" if table.separator == "\t" else "csv"
            yield from read_delimited(stream, replace(span, file=span.file._replace(format=kind)), settings)
            return
        if table:
            settings.doubts.append(
                f"{path} looks like a table (columns: {', '.join(table.columns)}), none of which is text: "
                "it is read as one document. If a column is text, give the file the ending .csv, and --text-column."
            )
    decoded = decode_stream(stream, settings.encoding, path)
    if decoded is None:
        yield Rejected(path, 0, 0, 0, "empty")
        return
    encoding, blocks = decoded
    settings.say_guess(path, encoding)
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
    size, found = len(separator.encode()), 0
    for block in blocks:
        *texts, held = (held + block).split(separator)
        settings.skip("document_separator", size * len(texts))
        found += len(texts)
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
    settings.separated[0 if found else 1] += 1
    if held or in_parts:
        yield Document(held, path)
