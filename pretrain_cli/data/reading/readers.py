"""How does a file of each format become documents?"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import operator
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

from pretrain_cli.data.reading.charsets import find_encoding
from pretrain_cli.data.reading.documents import Batch, Document, Record, Rejected
from pretrain_cli.data.reading.inputs import STDIN, InputFile, is_url
from pretrain_cli.errors import DataError

BLOCK = 1 << 19
ROWS_AT_ONCE = 1024
COLUMN_NAMES = ("text", "content", "body")
PARTS_HINT = "Say which with --text-column NAME."


@dataclass
class ReadSettings:
    """What shapes reading: the separator, the column, the encoding; ``notes`` collects what was found out."""

    separator: str = ""
    column: str = "auto"
    encoding: str = "auto"
    notes: list[str] = field(default_factory=list)
    skipped_bytes: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, size: int) -> None:
        if size:
            self.skipped_bytes[reason] = self.skipped_bytes.get(reason, 0) + size


@dataclass(frozen=True)
class Span:
    """A file, or the lines of it that begin in bytes ``start`` to ``end`` (-1: to the end)."""

    file: InputFile
    start: int = 0
    end: int = -1


def read(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The records of a span, in order.

    Raises:
        DataError: the file can't be opened, is cut short, isn't text, or has no text column.
    """
    reader = READERS[span.file.format]
    try:
        yield from reader(span, settings)
    except DataError:
        raise
    except (EOFError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise
        raise DataError(
            f"{span.file.path} can't be read: {_reason(error)}.", "Is it complete? Check it, or leave it out."
        ) from error
    except Exception as error:
        if type(error).__name__ in {"LZMAError", "ZstdError", "ArrowInvalid", "error"}:
            raise DataError(
                f"{span.file.path} can't be read: {_reason(error)}.", "Is it complete? Check it, or leave it out."
            ) from error
        raise


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".").split("\n")[0]


def open_bytes(file: InputFile) -> IO[bytes]:
    """The file's bytes, decompressed as they are read."""
    raw: IO[bytes]
    if file.path == STDIN:
        raw = sys.stdin.buffer
    elif is_url(file.path):
        import fsspec

        # Its own files can't give some lines at a time.
        raw = io.BufferedReader(fsspec.open(file.path, "rb").open(), BLOCK)
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
    """Whether a part of the file can be had without all that is before it."""
    if file.compression or file.path == STDIN or file.size < 0:
        return False
    if not file.path.startswith(("http://", "https://")):
        return True
    import fsspec

    return bool(fsspec.core.url_to_fs(file.path)[0].info(file.path).get("partial"))


def read_text(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """Plain text: the file is a document, or what ``settings.separator`` parts are."""
    path = span.file.path
    with open_bytes(span.file) as stream:
        head = _read_full(stream, BLOCK)
        if not head:
            yield Rejected(path, 0, 0, 0, "empty")
            return
        encoding = find_encoding(head, settings.encoding, path, len(head) < BLOCK)
        if encoding.guessed:
            settings.notes.append(f"{path} isn't UTF-8: read as {encoding.name}.")
        settings.skip("byte_order_mark", encoding.mark)
        blocks = _decoded(stream, head[encoding.mark :], encoding.name, encoding.mark, path)
        if settings.separator:
            yield from _separated(blocks, path, settings, encoding.mark)
        else:
            yield from _whole(blocks, path, encoding.mark)


def _read_full(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _decoded(stream: IO[bytes], head: bytes, name: str, offset: int, path: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(name)()
    block = head
    while True:
        following = _read_full(stream, BLOCK)
        try:
            text = decoder.decode(block, not following)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} isn't {name} at byte {offset + error.start}.", "Say its encoding: --set data.encoding=latin-1"
            ) from error
        if text:
            yield text
        offset += len(block)
        if not following:
            return
        block = following


def _whole(blocks: Iterator[str], path: str, offset: int) -> Iterator[Record]:
    previous = next(blocks, "")
    for block in blocks:
        yield Document(previous, path, 0, offset, final=False)
        previous = block
    if previous:
        yield Document(previous, path, 0, offset)


def _separated(blocks: Iterator[str], path: str, settings: ReadSettings, offset: int) -> Iterator[Record]:
    separator, held, within = settings.separator, "", False
    size = len(separator.encode())
    for block in blocks:
        *texts, held = (held + block).split(separator)
        settings.skip("document_separator", size * len(texts))
        if texts and within:
            yield Document(texts.pop(0), path)
            within = False
        if batch := make_batch(texts, path):
            yield batch
        # A document longer than a block goes on in parts; the end stays, it may be half a separator.
        if len(held) > BLOCK + len(separator):
            cut = len(held) - len(separator) + 1
            yield Document(held[:cut], path, final=False)
            held, within = held[cut:], True
    if held or within:
        yield Document(held, path)


def make_batch(texts: list[str], path: str) -> Batch | None:
    """The texts that aren't empty as one record; None if there are none.

    Raises:
        UnicodeEncodeError: one holds half a character.
    """
    texts = list(filter(None, texts))
    return Batch(texts, list(map(str.encode, texts)), path) if texts else None


def read_jsonl(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """One JSON object, or one JSON string, a line."""
    path, offset, number, column = span.file.path, span.start, 0, settings.column
    with open_bytes(span.file) as stream:
        if span.start:
            stream.seek(span.start)
        # A span ends where a line does, so the last block ends with it.
        limit = sys.maxsize if span.end < 0 else span.end - span.start
        for lines in _line_blocks(stream, limit, bool(span.file.compression)):
            found = _whole_block(lines, column, path)
            if found:
                column, batch = found
                yield batch
            else:
                column = yield from _one_by_one(lines, column, path, number, offset)
            number += len(lines)
            offset += sum(map(len, lines))


def _line_blocks(stream: IO[bytes], limit: int, compressed: bool) -> Iterator[list[bytes]]:
    """Lines of ``limit`` bytes in all, about BLOCK at a time.

    Of a compressed file that is cut short, the lines before the cut come before the error: ``readlines`` loses them.
    """
    while limit > 0:
        lines: list[bytes] = []
        try:
            if compressed:
                lines += itertools.islice(stream, ROWS_AT_ONCE)
            else:
                lines = stream.readlines(min(BLOCK, limit))
        except (EOFError, OSError, ValueError):
            if lines:
                yield lines
            raise
        if not lines:
            return
        yield lines
        limit -= sum(map(len, lines))


_scan_json: Callable[[str, int], tuple[Any, int]] = cast(Any, json.JSONDecoder()).scan_once


def _whole_block(lines: list[bytes], column: str, path: str) -> tuple[str, Batch] | None:
    """(column, all texts) of lines without anything unusual, else None: no Python for each line but this."""
    try:
        decoded = list(map(bytes.decode, lines))
        # The scanner of json.loads. Where it meets no JSON at all it raises StopIteration, which ends the list early.
        scanned = list(map(_scan_json, decoded, itertools.repeat(0)))
        if len(scanned) < len(lines):
            return None
        values, ends = map(list, zip(*scanned, strict=True))
        if ends != list(map(len, map(str.rstrip, decoded, itertools.repeat(" \t\r\n")))):
            return None
        if column == "auto":
            if not isinstance(values[0], dict):
                return None
            column = choose_column(values[0], path)
        texts = list(map(operator.itemgetter(column), values))
        if set(map(type, texts)) != {str} or not all(texts):
            return None
        batch = make_batch(texts, path)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (column, batch) if batch else None


def _one_by_one(lines: list[bytes], column: str, path: str, number: int, offset: int) -> Generator[Record, None, str]:
    """Each line's record; ``number`` and ``offset``: lines and bytes before them. Returns the column."""
    for raw in lines:
        number, here, offset = number + 1, offset, offset + len(raw)
        line = raw[3:] if here == 0 and raw.startswith(codecs.BOM_UTF8) else raw
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())  # given bytes, json would guess the encoding of each line
        except (ValueError, RecursionError) as error:
            yield Rejected(path, number, here, len(raw), "not_json", _reason(error))
            continue
        if column == "auto" and isinstance(value, dict):
            column = choose_column(value, path)
        yield _record(value, column, path, number, here, len(raw))
    return column


def choose_column(value: dict[str, Any], path: str) -> str:
    """The text column of a record: text, content, body, or the only column with text in it.

    Raises:
        DataError: none, or several.
    """
    for name in COLUMN_NAMES:
        if name in value:
            return name
    texts = [name for name, entry in value.items() if isinstance(entry, str)]
    if len(texts) == 1:
        return texts[0]
    columns = ", ".join(value) or "none"
    raise DataError(f"{path}: which column holds the text? It has: {columns}.", PARTS_HINT)


def _record(value: Any, column: str, path: str, number: int, offset: int, size: int) -> Document | Rejected:
    text = value.get(column) if isinstance(value, dict) else value
    if not isinstance(text, str):
        missing = isinstance(value, dict) and column not in value
        reason = "no_text_column" if missing else "text_is_null" if text is None else "text_is_no_string"
        return Rejected(path, number, offset, size, reason)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Rejected(path, number, offset, size, "lone_surrogate", "a \\ud800-\\udfff that is half a character")
    if not text:
        return Rejected(path, number, offset, size, "empty")
    return Document(text, path, number, offset)


def read_json(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A JSON array of records, one record, or one record a line."""
    path = span.file.path
    with open_bytes(span.file) as stream:
        raw = stream.read()
    try:
        value = json.loads(raw.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        if b"\n{" in raw.strip():
            yield from read_jsonl(span, settings)
            return
        yield Rejected(path, 1, int(getattr(error, "pos", 0)), len(raw), "not_json", _reason(error))
        return
    if isinstance(value, dict):
        lists = [entry for entry in value.values() if isinstance(entry, list) and entry and isinstance(entry[0], dict)]
        value = lists[0] if len(lists) == 1 and not any(isinstance(entry, str) for entry in value.values()) else [value]
    values = value if isinstance(value, list) else [value]
    column = settings.column
    for number, entry in enumerate(values, 1):
        if column == "auto" and isinstance(entry, dict):
            column = choose_column(entry, path)
        yield _record(entry, column, path, number, 0, 0)


def read_csv(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """A table with a header line; quoted fields may hold line ends."""
    path, delimiter = span.file.path, "\t" if span.file.format == "tsv" else ","
    csv.field_size_limit(1 << 30)
    with open_bytes(span.file) as stream:
        head = _read_full(stream, BLOCK)
        if not head:
            yield Rejected(path, 0, 0, 0, "empty")
            return
        encoding = find_encoding(head, settings.encoding, path, len(head) < BLOCK)
        lines = _lines(_decoded(stream, head[encoding.mark :], encoding.name, encoding.mark, path))
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
        column = settings.column
        if column == "auto":
            column = choose_column(dict.fromkeys(header, ""), path)
        if column not in header:
            raise DataError(f"{path} has no column '{column}'; it has: {', '.join(header)}.", PARTS_HINT)
        place = header.index(column)
        filled = ((row, rows.line_num) for row in rows if row)
        while block := list(itertools.islice(filled, ROWS_AT_ONCE)):
            texts = [row[place] if place < len(row) else None for row, _ in block]
            if all(texts):
                yield Batch(cast("list[str]", texts), [cast(str, text).encode() for text in texts], path)
                continue
            for (row, line), text in zip(block, texts, strict=True):
                yield _record(text, column, path, line, 0, sum(map(len, row)))


def _lines(blocks: Iterator[str]) -> Iterator[str]:
    held = ""
    for block in blocks:
        lines = io.StringIO(held + block, newline="").readlines()
        held = lines.pop() if lines else ""
        yield from lines
    if held:
        yield held


def read_table(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """Parquet and Arrow tables, batch by batch."""
    import pyarrow as pa

    path, number = span.file.path, 0
    with open_bytes(span.file) as stream:
        seekable: Any = stream if can_seek(span.file) else io.BytesIO(stream.read())
        batches, schema = _table_batches(seekable, span.file.format, settings)
        names = [
            entry.name for entry in schema if pa.types.is_string(entry.type) or pa.types.is_large_string(entry.type)
        ]
        column = settings.column if settings.column != "auto" else choose_column(dict.fromkeys(names, ""), path)
        if column not in schema.names:
            raise DataError(f"{path} has no column '{column}'; it has: {', '.join(schema.names)}.", PARTS_HINT)
        for batch in batches:
            texts = batch.column(batch.schema.get_field_index(column)).to_pylist()
            if texts and all(texts) and set(map(type, texts)) == {str}:
                yield Batch(texts, list(map(str.encode, texts)), path)
            else:
                for place, text in enumerate(texts, number + 1):
                    yield _record(text, column, path, place, 0, 0)
            number += len(texts)


def _table_batches(stream: Any, kind: str, settings: ReadSettings) -> tuple[Iterator[Any], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        table = pq.ParquetFile(stream)
        names = table.schema_arrow.names
        column = settings.column if settings.column != "auto" else next((n for n in COLUMN_NAMES if n in names), "")
        return table.iter_batches(batch_size=1024, columns=[column] if column in names else None), table.schema_arrow
    try:
        file = pa.ipc.open_file(stream)
        return (file.get_batch(index) for index in range(file.num_record_batches)), file.schema
    except pa.ArrowInvalid:
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
        return iter(reader), reader.schema


def read_hub(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """``hf://datasets/owner/name[:split]`` without a file name: the dataset, streamed."""
    from datasets import load_dataset

    name, _, split = span.file.path.removeprefix("hf://datasets/").partition(":")
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the hub's own errors, network errors: all mean the same to the user
        raise DataError(
            f"{span.file.path} can't be opened: {error!r}.", "Check its name, split and the network."
        ) from error
    column = settings.column
    for number, row in enumerate(rows, 1):
        column = choose_column(row, span.file.path) if column == "auto" else column
        yield _record(row, column, span.file.path, number, 0, 0)


def read_extra(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """HTML, PDF, DOCX and EPUB, through the libraries of the extra ``documents``."""
    from pretrain_cli.data.reading.rich_text import EXTRACTORS

    path = span.file.path
    with open_bytes(span.file) as stream:
        raw = stream.read()
    if not raw:
        yield Rejected(path, 0, 0, 0, "empty")
        return
    text = EXTRACTORS[span.file.format](raw, path)
    settings.skip("markup", max(0, len(raw) - len(text.encode())))
    yield Document(text, path) if text.strip() else Rejected(path, 0, 0, 0, "no_text_found")


READERS: dict[str, Callable[[Span, ReadSettings], Iterator[Record]]] = {
    "text": read_text, "jsonl": read_jsonl, "json": read_json, "csv": read_csv, "tsv": read_csv,
    "parquet": read_table, "arrow": read_table, "hub": read_hub,
    "html": read_extra, "pdf": read_extra, "docx": read_extra, "epub": read_extra,
}  # fmt: skip
