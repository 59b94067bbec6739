"""Gets the text out of an HTML, PDF, DOCX or EPUB file, in a process of its own.

A file of some kB can make a library work for hours or take all memory, and no check of ours knows all such files.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pretrain_cli.bounded import bound_memory, bound_time, questions
from pretrain_cli.errors import first_line
from pretrain_cli.formatting import byte_size

PACKAGES = {"html": "trafilatura", "pdf": "pypdf", "docx": "python-docx", "epub": "ebooklib"}
"""What each format is read with."""
LONG_TAG = re.compile(rb"<[^<>]{3000,}")
QUOTED = re.compile(rb"\"[^\"]*\"|'[^']*'")
MOST_ATTRIBUTES = 1_000
"""Of one tag: lxml compares each with all before it, for 11 s at 40,000."""
MOST_COLUMNS = 1_000
"""That a cell of a Word table may span: Word has 63 at most, and python-docx makes a cell of each."""


class TooLongError(Exception):
    """A document of more text than a record may have: a small file can say the same text any number of times."""


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


def html(raw: bytes, most: int) -> str:
    """The main text of a page in UTF-8, without menus and scripts; all of its text where no main part is found."""
    import trafilatura

    _check_attributes(raw)
    return trafilatura.extract(raw, include_comments=False) or _all_text(raw, "utf-8")


def pdf(raw: bytes, most: int) -> str:
    """The text of all pages. A scanned PDF has none."""
    from pypdf import PdfReader

    return _joined((page.extract_text() for page in PdfReader(io.BytesIO(raw)).pages), "\n\n", most)


def docx(raw: bytes, most: int) -> str:
    """The paragraphs of a Word document, and the rows of its tables with a tab between cells, in order."""
    import docx as library
    from docx.table import Table

    document = library.Document(io.BytesIO(raw))
    if any(int(columns) > MOST_COLUMNS for columns in document.element.xpath("//w:gridSpan/@w:val")):
        raise ValueError(f"a cell in it spans over {MOST_COLUMNS:,} columns")

    def lines() -> Iterator[str]:
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                yield from _rows(block, most)
            else:
                yield block.text

    return _joined(lines(), "\n", most)


def _rows(table: Any, most: int) -> Iterator[str]:
    """The rows of a Word table. What spans several rows or columns stands in each.

    Raises:
        TooLongError: a row has more than ``most`` characters.
    """
    from docx.table import _Cell

    above: dict[int, str] = {}
    for row in table.rows:
        column, texts, here = row._tr.grid_before, [], {}
        for tc in row._tr.tc_lst:
            # python-docx goes up from each cell to the first one of those that are merged, row by row.
            merged = tc.vMerge == "continue" and column in above
            here[column] = above[column] if merged else _Cell(tc, table).text
            texts.append(itertools.repeat(here[column], tc.grid_span))
            column += tc.grid_span
        above = here
        yield _joined(itertools.chain.from_iterable(texts), "\t", most)


def epub(raw: bytes, most: int) -> str:
    """The chapters of a book, in reading order, each once."""
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


EXTRACTORS: dict[str, Callable[[bytes, int], str]] = {"html": html, "pdf": pdf, "docx": docx, "epub": epub}


def _serve() -> None:
    """The process itself: reads one document after the other."""
    for question, raw, reply in questions():
        bound_memory(question["most_memory"])
        bound_time(question["seconds"])
        try:
            text = EXTRACTORS[question["format"]](raw, question["most"])
            reply({}, text.encode("utf-8", "surrogatepass"))
        except ImportError as error:
            reply({"missing": str(error)})
        except TooLongError:
            reply({"too_long": True})
        except MemoryError:
            reply({"error": f"reading it takes more than {byte_size(question['most_memory'])} of memory"})
        except Exception as error:  # a damaged file makes these libraries raise nearly anything
            reply({"error": first_line(error)})


if __name__ == "__main__":
    _serve()
