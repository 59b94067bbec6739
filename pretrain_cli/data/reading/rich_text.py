"""Reads the text of HTML, PDF, DOCX and EPUB files, each with a library of the extra `documents`."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from pretrain_cli.data.reading.charsets import find_page_encoding
from pretrain_cli.data.reading.documents import UNREADABLE_HINT, Document, Record, Rejected
from pretrain_cli.data.reading.input_files import Span, read_at_most
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError, MissingDependencyError, PtkError, first_line
from pretrain_cli.optional import to_install

LOGGERS = ("pypdf", "trafilatura", "htmldate", "courlan", "docx", "ebooklib")


def read_rich_text(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The file as one document."""
    path = span.file.name
    raw = read_at_most(stream, settings.max_record_bytes)
    if raw is None or _unpacked(raw, span.file.format) > settings.max_record_bytes:
        yield settings.too_long(path, 0, 0, len(raw) if raw is not None else settings.max_record_bytes)
        return
    if not raw:
        yield Rejected(path, 0, 0, 0, "empty")
        return
    size = len(raw)
    if span.file.format == "html":
        encoding = find_page_encoding(raw, settings.encoding, path)
        settings.say_guess(path, encoding)
        raw = raw[encoding.mark_bytes :].decode(encoding.name, "replace").encode()
    text = EXTRACTORS[span.file.format](raw, path)
    settings.skip("markup", max(0, size - len(text.encode())))
    yield Document(text, path) if text.strip() else Rejected(path, 0, 0, 0, "no_text_found")


def _unpacked(raw: bytes, format: str) -> int:
    """Bytes of all that a file of this format packs; 0 if it packs nothing. `zipfile` unpacks no more than it says."""
    if format not in ("docx", "epub"):
        return 0
    try:
        return sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(raw)).infolist())
    except Exception:  # zipfile raises nearly anything for a damaged file; reading it says what is wrong
        return 0


@contextmanager
def _extracting(path: str, package: str) -> Iterator[None]:
    for name in LOGGERS:  # what they say of a damaged file is for their developers: the error below says what matters
        logging.getLogger(name).propagate = False
        if not logging.getLogger(name).handlers:  # without one, Python writes it to stderr
            logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path} needs {package} ({error}).", to_install(extra="documents")
        ) from error
    except PtkError:
        raise
    except Exception as error:  # a damaged file makes these libraries raise nearly anything
        raise DataError(f"{path} can't be read: {first_line(error)}.", UNREADABLE_HINT) from error


def html(raw: bytes, path: str) -> str:
    """The main text of a page in UTF-8, without menus and scripts; all of its text where no main part is found."""
    with _extracting(path, "trafilatura"):
        import trafilatura

        return trafilatura.extract(raw, include_comments=False) or _all_text(raw, "utf-8")


def pdf(raw: bytes, path: str) -> str:
    """The text of all pages. A scanned PDF has none."""
    with _extracting(path, "pypdf"):
        from pypdf import PdfReader

        return "\n\n".join(page.extract_text() for page in PdfReader(io.BytesIO(raw)).pages)


def docx(raw: bytes, path: str) -> str:
    """The paragraphs of a Word document, and the rows of its tables with a tab between cells, in order."""
    with _extracting(path, "python-docx"):
        import docx as library
        from docx.table import Table

        lines: list[str] = []
        for block in library.Document(io.BytesIO(raw)).iter_inner_content():
            if isinstance(block, Table):
                lines += ("\t".join(cell.text for cell in row.cells) for row in block.rows)
            else:
                lines.append(block.text)
        return "\n".join(lines)


def epub(raw: bytes, path: str) -> str:
    """The chapters of a book, in reading order."""
    with _extracting(path, "ebooklib"):
        import ebooklib.epub

        book = ebooklib.epub.read_epub(io.BytesIO(raw), {"ignore_ncx": True})
        items = [book.get_item_with_id(name) for name, _ in book.spine]
        return "\n\n".join(_all_text(item.get_content()) for item in items if item is not None)


def _all_text(raw: bytes, encoding: str | None = None) -> str:
    from lxml import html as parser

    page = parser.document_fromstring(raw, parser.HTMLParser(encoding=encoding))
    for element in page.xpath("//script|//style|//title"):
        element.drop_tree()
    lines = (line.strip() for line in page.text_content().splitlines())
    return "\n".join(line for line in lines if line)


EXTRACTORS: dict[str, Callable[[bytes, str], str]] = {"html": html, "pdf": pdf, "docx": docx, "epub": epub}
