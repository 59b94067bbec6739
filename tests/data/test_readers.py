"""Each format gives the same documents, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import copy
import gzip
import io
import itertools
import json
import lzma
import os
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from pretrain_cli.data.reading import rich_text
from pretrain_cli.data.reading.documents import Document, DocumentBatch, Rejected
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from tests.support.preparing import Preparing
from tests.support.tables import table

TEXTS = ["The first document.", 'The second, "quoted"\nand on two lines.', "Die dritte: äöü 数据"]


def documents(path: Path | str, **settings: str) -> list[str]:
    """The texts of all documents, parts of a long one joined."""
    found, parts = [], ""
    for file in find_files([str(path)]):
        for record in read(Span(file), ReadSettings(**settings)):
            if isinstance(record, DocumentBatch):
                found += record.texts
                continue
            assert isinstance(record, Document)
            parts += record.text
            if record.final:
                found.append(parts)
                parts = ""
    assert not parts
    return found


def jsonl(key: str = "text") -> bytes:
    return "".join(json.dumps({"id": i, key: text}) + "\n" for i, text in enumerate(TEXTS)).encode()


def csv_bytes(delimiter: str) -> bytes:
    import csv

    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerows([["id", "text"], *([str(i), text] for i, text in enumerate(TEXTS))])
    return sink.getvalue().encode()


FORMATS: dict[str, Callable[[], bytes]] = {
    "jsonl": jsonl,
    "json": lambda: json.dumps([{"text": text} for text in TEXTS]).encode(),
    "csv": lambda: csv_bytes(","),
    "tsv": lambda: csv_bytes("\t"),
    "parquet": lambda: table("parquet", TEXTS),
    "arrow": lambda: table("arrow", TEXTS),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_format_in_every_compression(tmp_path: Path, kind: str, compression: str) -> None:
    path = tmp_path / f"data.{kind}{compression}"
    path.write_bytes(COMPRESSIONS[compression](FORMATS[kind]()))
    assert documents(path) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    text = "“Smart quotes” — and a café, in many ordinary English words besides.\n" * 20
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert documents(tmp_path / "a.txt") == [text]


def test_a_wrong_byte_in_utf8_is_an_error_and_no_other_encoding(tmp_path: Path) -> None:
    text = ("数据 テスト 데이터, naïve café. " * 50).encode()
    (tmp_path / "a.txt").write_bytes(text + b"\xff\xfe" + text)
    with pytest.raises(DataError, match=f"damaged at byte {len(text):,}"):
        documents(tmp_path / "a.txt")


def test_a_separator_separates_documents_wherever_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrain_cli.data.reading import input_files

    (tmp_path / "a.txt").write_text("<end>".join(TEXTS * 20), encoding="utf-8")
    for size in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(input_files, "BLOCK_BYTES", size)
        assert documents(tmp_path / "a.txt", separator="<end>", encoding="utf-8") == TEXTS * 20


def test_folders_and_globs_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden.txt", "sub/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert documents(tmp_path) == ["a.txt", "b.txt", "sub/c.md"]
    assert documents(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert documents(tmp_path / "*") == ["a.txt", "b.txt", "sub/c.md"]  # as an unquoted one, which the shell expands
    assert documents(tmp_path / "**" / "*.*") == ["a.txt", "b.txt", "sub/c.md"]


def test_an_fsspec_address_is_read_like_a_file() -> None:
    import fsspec

    with fsspec.open("memory://folder/data.jsonl", "wb") as file:
        file.write(jsonl("content"))
    assert documents("memory://folder/data.jsonl") == TEXTS
    assert documents("memory://folder") == TEXTS


class Server(BaseHTTPRequestHandler):
    """Serves every format; with `?unsized` it doesn't say how long the file is."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        name, _, query = self.path.partition("?")
        made = FORMATS.get(name.rpartition(".")[2])
        content = made() if made else TEXTS[0].encode()
        self.send_response(200)
        if query != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("query", ["", "?unsized"])
def test_a_web_address_is_read_like_a_file_whether_or_not_its_size_is_known(address: str, query: str) -> None:
    pytest.importorskip("aiohttp")
    for kind in FORMATS:
        assert documents(f"{address}/data.{kind}{query}") == TEXTS, kind
    assert documents(f"{address}/no-ending{query}") == TEXTS[:1]


def test_a_web_address_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/a\.txt can't be opened"):
        documents("http://127.0.0.1:9/a.txt")


def test_an_unknown_column_lists_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"one": "x", "two": "y"}\n')
    with pytest.raises(DataError, match="one, two"):
        documents(tmp_path / "a.jsonl")
    assert documents(tmp_path / "a.jsonl", column="two") == ["y"]


def test_a_web_page_gives_its_text_without_scripts(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    (tmp_path / "a.html").write_text(
        "<html><script>var x=1</script><article><h1>Title</h1><p>Body text of the page.</p></article></html>"
    )
    (text,) = documents(tmp_path / "a.html")
    assert "Body text of the page." in text and "var x" not in text


def test_a_word_file_gives_its_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("Before the table.")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    document.add_paragraph("After it.")
    document.save(str(tmp_path / "b.docx"))
    assert documents(tmp_path / "b.docx") == ["Before the table.\nleft\tright\nAfter it."]


def test_a_book_gives_its_chapters_in_reading_order(tmp_path: Path) -> None:
    epub = pytest.importorskip("ebooklib.epub")
    book = epub.EpubBook()
    book.set_title("A book")
    chapters = []
    for number in (1, 2):
        chapter = epub.EpubHtml(title=f"Chapter {number}", file_name=f"{number}.xhtml")
        chapter.content = f"<html><body><p>The text of chapter {number}.</p></body></html>"
        book.add_item(chapter)
        chapters.append(chapter)
    book.add_item(epub.EpubNcx())
    book.spine = chapters[::-1]
    epub.write_epub(str(tmp_path / "a.epub"), book)
    assert documents(tmp_path / "a.epub") == ["The text of chapter 2.\n\nThe text of chapter 1."]


def test_a_pdf_gives_the_text_of_its_pages(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    fonts = DictionaryObject(
        {NameObject("/F1"): DictionaryObject({NameObject(k): NameObject(v) for k, v in font.items()})}
    )
    for text in ("The first page.", "The second page."):
        page = writer.add_blank_page(300, 300)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    writer.write(str(tmp_path / "a.pdf"))
    assert documents(tmp_path / "a.pdf") == ["The first page.\n\nThe second page."]


@pytest.mark.parametrize("kind", ["pdf", "docx", "epub"])
def test_a_damaged_document_is_an_error(tmp_path: Path, kind: str) -> None:
    pytest.importorskip({"pdf": "pypdf", "docx": "docx", "epub": "ebooklib"}[kind])
    with zipfile.ZipFile(tmp_path / f"a.{kind}", "w") as archive:
        archive.writestr("nothing", "")
    with pytest.raises(DataError, match="can't be read"):
        documents(tmp_path / f"a.{kind}")


def test_an_arrow_file_whose_offsets_lead_elsewhere_is_an_error(tmp_path: Path) -> None:
    """Its reader maps what is there: unchecked, such offsets read other memory, or end the process."""
    whole = table("arrow", TEXTS)
    ends = struct.pack("<3i", *itertools.accumulate(len(text.encode()) for text in TEXTS))
    assert ends in whole
    (tmp_path / "a.arrow").write_bytes(whole.replace(ends, struct.pack("<3i", -5, 1 << 30, -1)))
    with pytest.raises(DataError, match="can't be read: "):
        documents(tmp_path / "a.arrow")


def test_json_that_is_nested_too_deeply_is_a_bad_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[" * 100_000)
    (record,) = read(Span(find_files([str(tmp_path / "a.json")])[0]), ReadSettings())
    assert isinstance(record, Rejected) and record.reason == "not_json"


def test_a_damaged_pdf_writes_nothing_to_the_screen(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(300, 300)
    writer.write(str(tmp_path / "a.pdf"))
    (tmp_path / "a.pdf").write_bytes((tmp_path / "a.pdf").read_bytes().replace(b"/MediaBox [ 0", b"/MediaBox [ {"))
    program = (
        "import sys\nfrom pretrain_cli.data.reading.input_files import Span\n"
        "from pretrain_cli.data.reading.inputs import find_files\nfrom pretrain_cli.data.reading.read import read\n"
        "from pretrain_cli.data.reading.settings import ReadSettings\n"
        "print(*read(Span(find_files(sys.argv[1:])[0]), ReadSettings()))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.pdf")], capture_output=True, text=True)
    assert "no_text_found" in done.stdout and done.stderr == ""


def wide_cell(columns: int, text: str) -> bytes:
    """A Word document with one cell that spans ``columns``."""
    docx = pytest.importorskip("docx")
    document, sink = docx.Document(), io.BytesIO()
    cell = document.add_table(1, 1).rows[0].cells[0]
    cell.text = text
    cell._tc.get_or_add_tcPr().get_or_add_gridSpan().val = columns
    document.save(sink)
    return sink.getvalue()


def test_a_cell_of_a_billion_columns_is_an_error(tmp_path: Path) -> None:
    """python-docx would make a list of as many cells."""
    (tmp_path / "a.docx").write_bytes(wide_cell(10**9, "text"))
    with pytest.raises(DataError, match="spans over 1,000 columns"):
        documents(tmp_path / "a.docx")


def book(chapters: int, items: int, text: str) -> bytes:
    """An .epub whose list of files names one page under several ids, and its order each several times."""
    pytest.importorskip("ebooklib")
    sink = io.BytesIO()
    listed = "".join(f'<item id="c{at}" href="c.xhtml" media-type="application/xhtml+xml"/>' for at in range(items))
    order = "".join(f'<itemref idref="c{at % items}"/>' for at in range(chapters))
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="c.opf"'
            ' media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        archive.writestr(
            "c.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" version="2.0"><metadata '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A book</dc:title></metadata>'
            f"<manifest>{listed}</manifest><spine>{order}</spine></package>",
        )
        archive.writestr("c.xhtml", f"<html><body><p>{text}</p></body></html>")
    return sink.getvalue()


def test_a_chapter_that_a_book_names_again_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_bytes(book(chapters=1_000, items=1, text="All of it."))
    assert documents(tmp_path / "a.epub") == ["All of it."]


@pytest.mark.parametrize("kind", ["docx", "epub"])
def test_a_document_that_says_the_same_again_and_again_is_too_long(tmp_path: Path, kind: str) -> None:
    text = "words " * 1_000
    file = tmp_path / f"a.{kind}"
    file.write_bytes(wide_cell(1_000, text) if kind == "docx" else book(chapters=1_000, items=1_000, text=text))
    (record,) = read(Span(find_files([str(file)])[0]), ReadSettings(max_record_bytes=1_000_000))
    assert isinstance(record, Rejected) and record.reason == "too_long"


def pages_of_one(many: int) -> bytes:
    """A PDF whose list of pages names one page again and again."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (many, b" 4 0 R" * many),
        b"<</Length 24>>stream\nBT /F 9 Tf (Again.) Tj ET\nendstream",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 3 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
    ]
    made, table = b"%PDF-1.4\n", b"xref\n0 5\n0000000000 65535 f \n"
    for number, content in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(made)
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    return made + table + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(made)


def test_a_document_that_would_take_hours_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdf")
    monkeypatch.setattr(rich_text, "LEAST_S", 4)
    monkeypatch.setattr(rich_text, "S_PER_MB", 0)
    (tmp_path / "a.pdf").write_bytes(pages_of_one(50_000))
    (record,) = read(Span(find_files([str(tmp_path / "a.pdf")])[0]), ReadSettings())
    assert isinstance(record, Rejected)
    assert (record.reason, record.detail) == ("too_slow", "reading it takes more than 4 s")
    (tmp_path / "b.pdf").write_bytes(pages_of_one(2))
    assert documents(tmp_path / "b.pdf") == ["Again.\n\nAgain."]


def test_a_reading_process_that_ended_between_documents_blames_none(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>Some words of a page.</p>")
    assert documents(tmp_path / "a.html") == ["Some words of a page."]
    for idle in rich_text._IDLE[os.getpid()]:
        idle._process.kill()
        idle._process.wait()
    assert documents(tmp_path / "a.html") == ["Some words of a page."]


def test_a_document_that_takes_too_long_is_in_the_ledger(
    tmp_path: Path, preparing: Preparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pypdf")
    monkeypatch.setattr(rich_text, "LEAST_S", 4)
    monkeypatch.setattr(rich_text, "S_PER_MB", 0)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.pdf").write_bytes(pages_of_one(50_000))
    texts = (json.dumps({"text": f"Text number {number}."}) for number in range(40))
    (tmp_path / "in/b.jsonl").write_text("\n".join(texts))
    result, artifacts = preparing(tmp_path / "in")
    assert result.documents == 40 and read_manifest(artifacts).ledger.documents.dropped == {"too_slow": 1}
    assert any("in/a.pdf takes too long to read" in warning for warning in result.warnings)


def test_a_document_that_takes_too_much_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trafilatura")
    if sys.platform != "linux":
        pytest.skip("other systems bound the time only")
    monkeypatch.setattr(rich_text, "LEAST_MEMORY", 100_000_000)
    monkeypatch.setattr(rich_text, "TIMES_MEMORY", 0)
    (tmp_path / "a.html").write_text("<html><body>" + "<p>word <b>x</b></p>" * 700_000)
    with pytest.raises(DataError, match="can't be read"):  # each library has its own words for it
        documents(tmp_path / "a.html")


def test_cells_that_are_merged_over_thousands_of_rows_are_read_at_once(tmp_path: Path) -> None:
    docx = pytest.importorskip("docx")
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    document = docx.Document()
    table, rows = document.add_table(1, 2), 2_000
    for at, text in enumerate(("Over all rows", "x")):
        table.rows[0].cells[at].text = text
    table.rows[0].cells[0]._tc.get_or_add_tcPr().append(merge := OxmlElement("w:vMerge"))
    merge.set(qn("w:val"), "restart")
    following = copy.deepcopy(table.rows[0]._tr)
    del following.tc_lst[0].tcPr.find(qn("w:vMerge")).attrib[qn("w:val")]
    for _ in range(rows - 1):
        table._tbl.append(copy.deepcopy(following))
    document.save(str(tmp_path / "a.docx"))
    started = time.monotonic()
    assert documents(tmp_path / "a.docx") == ["\n".join(["Over all rows\tx"] * rows)]
    assert time.monotonic() - started < 30  # python-docx itself: minutes, or too deep a recursion


def test_a_tag_with_too_many_attributes_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    attributes = " ".join(f"a{at}=x" for at in range(40_000))
    (tmp_path / "a.html").write_text(f"<html><body><p {attributes}>text</p></body></html>")
    with pytest.raises(DataError, match="over 1,000 attributes"):
        documents(tmp_path / "a.html")


@pytest.mark.parametrize("kind", ["docx", "epub"])
def test_an_archive_that_zipfile_does_not_know_is_an_error(tmp_path: Path, kind: str) -> None:
    pytest.importorskip({"docx": "docx", "epub": "ebooklib"}[kind])
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("nothing", "")
    entry = sink.getvalue().index(b"PK\x01\x02")
    made = bytearray(sink.getvalue())
    made[entry + 6] = 255  # the version of the format that unpacking it takes
    (tmp_path / f"a.{kind}").write_bytes(made)
    with pytest.raises(DataError, match="can't be read"):
        documents(tmp_path / f"a.{kind}")


def test_a_table_of_types_that_pyarrow_does_not_have_is_an_error(tmp_path: Path) -> None:
    """It raises other errors than for damage."""
    whole = table("arrow", TEXTS)
    for place in range(len(whole)):
        for value in (64, 255):
            (tmp_path / "a.arrow").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(DataError):
                documents(tmp_path / "a.arrow")
