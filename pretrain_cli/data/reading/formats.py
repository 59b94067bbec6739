"""Lists the formats that can be read: the endings of their files' names, and their readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from pretrain_cli.data.reading.columnar import read_columnar
from pretrain_cli.data.reading.delimited import read_delimited
from pretrain_cli.data.reading.documents import Record
from pretrain_cli.data.reading.hub_dataset import read_hub
from pretrain_cli.data.reading.input_files import TAR_ENDINGS, Span, plain_ending
from pretrain_cli.data.reading.json_records import read_json, read_jsonl
from pretrain_cli.data.reading.plain_text import read_text
from pretrain_cli.data.reading.rich_text import read_rich_text
from pretrain_cli.data.reading.settings import ReadSettings

Reader = Callable[[IO[bytes], Span, ReadSettings], Iterator[Record]]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        read: gives the records of a file that is open at its start, or of some of its lines; None for archives.
        takes: what is read, for the documentation.
        refuses: what is a bad record, or a file that can't be read, for the documentation.
        endings: of the names of its files.
        slow: reading takes longer than encoding, so that several processes pay.
    """

    read: Reader | None
    takes: str
    refuses: str
    endings: tuple[str, ...] = ()
    slow: bool = False


COLUMN = "the text column of each record"
NOT_TEXT = "bytes that aren't text, a damaged byte"
FORMATS = {
    "text": Format(
        read_text,
        "the file as one document, or the documents between separators; JSON, HTML and tables as what they are",
        f"{NOT_TEXT}; a separator that occurs in no file",
        (".txt", ".text", ".md", ".markdown", ".rst"),
    ),
    "jsonl": Format(
        read_jsonl,
        f"{COLUMN}, or a string on each line",
        "a line that isn't JSON or UTF-8, has no such column, or another type in it",
        (".jsonl", ".jsonlines", ".ndjson", ".ldjson", ".jl"),
    ),
    "json": Format(
        read_json,
        f"{COLUMN}, wherever the list of records is, or a table by columns; several objects one after the other",
        "what isn't JSON; text in lists inside records",
        (".json",),
    ),
    "csv": Format(
        read_delimited,
        "the text column; separator, quotes and escapes are found",
        "a row longer or shorter than the header, a quote that never closes, a table without a header",
        (".csv", ".psv"),
    ),
    "tsv": Format(read_delimited, "the same, with tabs by default", "the same", (".tsv", ".tab")),
    "parquet": Format(
        read_columnar,
        "the text column: strings of all kinds, and bytes that are UTF-8, also inside a struct",
        "columns of other types, by their names; bytes that aren't UTF-8",
        (".parquet",),
    ),
    "arrow": Format(read_columnar, "the same, in files and streams", "the same", (".arrow", ".feather")),
    "html": Format(
        read_rich_text, "the main text of the page", "a page without text", (".html", ".htm", ".xhtml"), slow=True
    ),
    "pdf": Format(read_rich_text, "the text of all pages", "scanned pages, a damaged file", (".pdf",), slow=True),
    "docx": Format(read_rich_text, "paragraphs and tables, in order", "a damaged file", (".docx",), slow=True),
    "epub": Format(read_rich_text, "the chapters, in reading order", "a damaged file", (".epub",), slow=True),
    "tar": Format(
        None,
        "the files in it that have one of these endings, without unpacking it to the disk",
        "a damaged archive; one that holds over 200 times its size. Files in it that are damaged, links, archives, and "
        "a data set's test split and card are left out",
        (".tar", *(f".{ending}" for ending in TAR_ENDINGS)),
        slow=True,
    ),
    "zip": Format(None, "the same", "the same; an encrypted one", (".zip",), slow=True),
    "hub": Format(
        read_hub, "the train split of a data set, or another one that is named", "a data set that isn't there"
    ),
}
ENDINGS = {ending: name for name, entry in FORMATS.items() for ending in entry.endings}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


def format_of(name: str) -> tuple[str, str]:
    """(format, compression) by the endings of a file's name; an unknown ending gives an empty format."""
    if plain := plain_ending(name):
        return ENDINGS.get(f".{plain}", ""), ""
    stem, ending = os.path.splitext(name.lower())
    compression = COMPRESSIONS.get(ending, "")
    if compression:
        ending = os.path.splitext(stem)[1]
    if ending[1:] in TAR_ENDINGS:
        return "tar", compression or TAR_ENDINGS[ending[1:]]
    return ENDINGS.get(ending, ""), compression
