"""How do HTML, PDF, DOCX and EPUB become plain text? Through one well-kept library each (extra `documents`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pretrain_cli.errors import DataError, MissingDependencyError, PtkError


@contextmanager
def _extracting(path: str, package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading {path} needs {package} ({error}).", "pip install 'pretrain-cli[documents]'"
        ) from error
    except PtkError:
        raise
    except Exception as error:  # a damaged file makes these libraries raise nearly anything
        raise DataError(f"{path} can't be read: {error!r}.", "Is the file complete? Leave it out if not.") from error


def html(raw: bytes, path: str) -> str:
    """The main text of a page, without menus and scripts; all of its text where no main part is found."""
    with _extracting(path, "trafilatura"):
        import trafilatura

        return trafilatura.extract(raw, include_comments=False) or _all_text(raw)


def pdf(raw: bytes, path: str) -> str:
    """The text of all pages. A scanned PDF has none."""
    with _extracting(path, "pypdf"):
        from pypdf import PdfReader

        return "\n\n".join(page.extract_text() for page in PdfReader(io.BytesIO(raw)).pages)


def docx(raw: bytes, path: str) -> str:
    """The paragraphs of a Word document, and its tables' rows with a tab between cells, in order."""
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


def _all_text(raw: bytes) -> str:
    from lxml import html as parser

    page = parser.document_fromstring(raw)
    for element in page.xpath("//script|//style|//title"):
        element.drop_tree()
    lines = (line.strip() for line in page.text_content().splitlines())
    return "\n".join(line for line in lines if line)


EXTRACTORS: dict[str, Callable[[bytes, str], str]] = {"html": html, "pdf": pdf, "docx": docx, "epub": epub}
