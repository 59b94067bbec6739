"""Reads the text of HTML, PDF, DOCX and EPUB files, each with a library of the extra `documents`."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from pretrain_cli.data.reading.charsets import find_page_encoding
from pretrain_cli.data.reading.documents import UNREADABLE_HINT, Document, Record, Rejected
from pretrain_cli.data.reading.input_files import Span, read_at_most
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError, MissingDependencyError, PtkError, first_line
from pretrain_cli.interruptible import interruptible
from pretrain_cli.optional import to_install

LOGGERS = ("pypdf", "trafilatura", "htmldate", "courlan", "docx", "ebooklib")
LONG_TAG = re.compile(rb"<[^<>]{3000,}")
QUOTED = re.compile(rb"\"[^\"]*\"|'[^']*'")
MOST_ATTRIBUTES = 1_000
"""Of one tag: lxml compares each with all before it, for 11 s at 40,000."""
MOST_COLUMNS = 1_000
"""That a cell of a Word table may span: Word has 63 at most, and python-docx makes a cell of each."""


class TooLongError(Exception):
    """A document of more text than a record may have: a small file can say the same text any number of times."""


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
    try:
        text = EXTRACTORS[span.file.format](raw, path, settings.max_record_bytes)
    except TooLongError:
        yield settings.too_long(path, 0, 0, size)
        return
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
    except (PtkError, TooLongError):
        raise
    except Exception as error:  # a damaged file makes these libraries raise nearly anything
        raise DataError(f"{path} can't be read: {first_line(error)}.", UNREADABLE_HINT) from error


def _joined(pieces: Iterable[str], between: str, most: int) -> str:
    """The pieces as one text. Raises TooLongError before it has more than ``most`` characters."""
    taken: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece) + len(between)
        if size > most:
            raise TooLongError
        taken.append(piece)
    return between.join(taken)


def html(raw: bytes, path: str, most: int) -> str:
    """The main text of a page in UTF-8, without menus and scripts; all of its text where no main part is found."""
    with _extracting(path, "trafilatura"):
        import trafilatura

        _check_attributes(raw)
        return interruptible(lambda: trafilatura.extract(raw, include_comments=False)) or _all_text(raw, "utf-8")


def pdf(raw: bytes, path: str, most: int) -> str:
    """The text of all pages. A scanned PDF has none."""
    with _extracting(path, "pypdf"):
        from pypdf import PdfReader

        return _joined((page.extract_text() for page in PdfReader(io.BytesIO(raw)).pages), "\n\n", most)


def docx(raw: bytes, path: str, most: int) -> str:
    """The paragraphs of a Word document, and the rows of its tables with a tab between cells, in order."""
    with _extracting(path, "python-docx"):
        import docx as library
        from docx.table import Table

        document = library.Document(io.BytesIO(raw))
        if any(int(columns) > MOST_COLUMNS for columns in document.element.xpath("//w:gridSpan/@w:val")):
            raise ValueError(f"a cell in it spans over {MOST_COLUMNS:,} columns")

        def lines() -> Iterator[str]:
            for block in document.iter_inner_content():
                if isinstance(block, Table):
                    yield from (_joined((cell.text for cell in row.cells), "\t", most) for row in block.rows)
                else:
                    yield block.text

        return _joined(lines(), "\n", most)


def epub(raw: bytes, path: str, most: int) -> str:
    """The chapters of a book, in reading order, each once."""
    with _extracting(path, "ebooklib"):
        import ebooklib.epub

        class BoundedReader(ebooklib.epub.EpubReader):  # type: ignore[misc]
            """Reads no more than a record may have, however many chapters name one file."""

            left = most

            def read_file(self, name: str) -> Any:
                content = super().read_file(name)
                self.left -= len(content)
                if self.left < 0:
                    raise TooLongError
                return content

        reader = BoundedReader(io.BytesIO(raw), {"ignore_ncx": True})
        book = reader.load()
        reader.process()
        items = {item.get_id(): item for item in book.get_items()}
        chapters = [items[name] for name in dict.fromkeys(name for name, _ in book.spine) if name in items]
        return _joined((_all_text(chapter.get_content()) for chapter in chapters), "\n\n", most)


def _check_attributes(raw: bytes) -> None:
    for tag in LONG_TAG.finditer(raw):
        if len(QUOTED.sub(b"", tag[0]).split()) > MOST_ATTRIBUTES:
            raise ValueError(f"a tag in it has over {MOST_ATTRIBUTES:,} attributes")


def _all_text(raw: bytes, encoding: str | None = None) -> str:
    from lxml import html as parser

    _check_attributes(raw)
    page = parser.document_fromstring(raw, parser.HTMLParser(encoding=encoding))
    for element in page.xpath("//script|//style|//title"):
        element.drop_tree()
    lines = (line.strip() for line in page.text_content().splitlines())
    return "\n".join(line for line in lines if line)


EXTRACTORS: dict[str, Callable[[bytes, str, int], str]] = {"html": html, "pdf": pdf, "docx": docx, "epub": epub}
