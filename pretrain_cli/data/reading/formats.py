"""Lists the formats that can be read: the endings of their files' names, and their readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pretrain_cli.data.reading.columnar import read_columnar
from pretrain_cli.data.reading.delimited import read_delimited
from pretrain_cli.data.reading.documents import Record
from pretrain_cli.data.reading.hub_dataset import read_hub
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.json_records import read_json, read_jsonl
from pretrain_cli.data.reading.plain_text import read_text
from pretrain_cli.data.reading.rich_text import read_rich_text
from pretrain_cli.data.reading.settings import ReadSettings

Reader = Callable[[Span, ReadSettings], Iterator[Record]]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        read: gives the records of a file, or of some of its lines.
        endings: of the names of its files.
        slow: reading takes longer than encoding, so that several processes pay.
    """

    read: Reader
    endings: tuple[str, ...] = ()
    slow: bool = False


FORMATS = {
    "text": Format(read_text, (".txt", ".text", ".md", ".rst")),
    "jsonl": Format(read_jsonl, (".jsonl", ".ndjson")),
    "json": Format(read_json, (".json",)),
    "csv": Format(read_delimited, (".csv",)),
    "tsv": Format(read_delimited, (".tsv",)),
    "parquet": Format(read_columnar, (".parquet",)),
    "arrow": Format(read_columnar, (".arrow", ".feather")),
    "html": Format(read_rich_text, (".html", ".htm"), slow=True),
    "pdf": Format(read_rich_text, (".pdf",), slow=True),
    "docx": Format(read_rich_text, (".docx",), slow=True),
    "epub": Format(read_rich_text, (".epub",), slow=True),
    "hub": Format(read_hub),
}
ENDINGS = {ending: name for name, entry in FORMATS.items() for ending in entry.endings}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


def format_of(name: str) -> tuple[str, str]:
    """(format, compression) by the endings of a file's name; an unknown ending gives an empty format."""
    stem, ending = os.path.splitext(name.lower())
    compression = COMPRESSIONS.get(ending, "")
    if compression:
        ending = os.path.splitext(stem)[1]
    return ENDINGS.get(ending, ""), compression
