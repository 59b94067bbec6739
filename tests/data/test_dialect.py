"""Tables keep every row, whatever separates, quotes and escapes their fields, or say which one is broken."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.small_files import read_simple
from pretrain_cli.errors import DataError
from tests.support.reading import read_path

DOCS = [
    f'Document {number}, "quoted"; it has {number} commas, semicolons; bars | and\na second line, of course.'
    for number in range(60)
]


def doubled(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def escaped(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def table(separator: str, quoted: Callable[[str], str], end: str = "\n") -> str:
    rows = [separator.join(["id", "text", "label"])]
    rows += [separator.join([str(number), quoted(text), "x"]) for number, text in enumerate(DOCS)]
    return end.join(rows) + end


DIALECTS = {
    "comma": table(",", doubled),
    "semicolon": table(";", doubled),
    "tab": table("\t", doubled),
    "bar": table("|", doubled),
    "backslash": table(",", escaped),
    "semicolon and backslash": table(";", escaped),
    "windows": table(";", doubled, "\r\n"),
    "old mac": table(",", lambda text: doubled(text.replace("\n", " ")), "\r"),
    "excel": "sep=;\n" + table(";", doubled),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_every_dialect_gives_every_row_and_is_told(tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_bytes(DIALECTS[name].encode())
    found = read_path(tmp_path / f"a.{ending}")
    assert found.texts == [text.replace("\n", " ") if name == "old mac" else text for text in DOCS]
    assert not found.rejected
    assert bool(found.settings.notes) == ((name, ending) not in {("comma", "csv"), ("old mac", "csv"), ("tab", "tsv")})


def test_quotes_that_enclose_nothing_are_characters(tmp_path: Path) -> None:
    texts = [f'"Yes," said number {number}, "no."' for number in range(50)]
    (tmp_path / "a.tsv").write_text("id\ttext\n" + "".join(f"{number}\t{text}\n" for number, text in enumerate(texts)))
    assert read_path(tmp_path / "a.tsv").texts == texts


@pytest.mark.parametrize("later", ["", '399,"a closed one"\n', '399,5" wide\n'])
def test_a_quote_that_never_closes_costs_its_line_only(tmp_path: Path, later: str) -> None:
    head = 'id,text\n1,"good one"\n'
    rows = "".join(f"{number},row number {number} with plain text\n" for number in range(3, 399))
    (tmp_path / "a.csv").write_text(f'{head}2,"an opened quote that never closes\n{rows}{later}')
    found = read_path(tmp_path / "a.csv")
    (bad,) = found.rejected
    assert (bad.line, bad.offset) == (3, len(head)) and "quote" in bad.reason
    assert len(found.texts) == 397 + bool(later)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["", "END", 'x"y\n'])
def test_lines_that_each_open_a_quote_are_read_once(tmp_path: Path, separator: str, end: str) -> None:
    good, lines = f"good text{separator}b\n" * 2_000, f'a"{separator}"\n' * 20_000
    end = f'a"{separator}b\n' if end == "END" else end
    path = tmp_path / ("a.tsv" if separator == "\t" else "a.csv")
    path.write_text(f"text{separator}b\n{good}{lines}{end}")
    started = time.monotonic()
    found = read_path(path, column="text")
    assert time.monotonic() - started < 15  # each line with all after it: minutes
    assert found.texts[:2_000] == ["good text"] * 2_000
    assert len(found.rejected) > 19_990 and {bad.reason for bad in found.rejected[:-10]} <= {
        "quote_never_closes",
        "quotes_in_a_field",
    }


def test_rows_of_another_length_are_counted_with_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,text\n1,a good row\n2,a text, cut by a comma\n3\n4,another good row\n5,and more,\n"
    )
    found = read_path(tmp_path / "a.csv")
    assert found.texts == ["a good row", "another good row", "and more"]
    assert [(bad.line, bad.offset) for bad in found.rejected] == [(3, 21), (4, 46)]
    assert [bad.reason for bad in found.rejected] == ["more_fields_than_the_header", "fewer_fields_than_the_header"]


def test_many_bad_rows_in_a_row_are_all_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n0,a good row\n" + "1,two,three\n" * 3000 + "2,the last row\n")
    found = read_path(tmp_path / "a.csv")
    assert found.texts == ["a good row", "the last row"] and len(found.rejected) == 3000


def test_tables_inside_fields_stay_there(tmp_path: Path) -> None:
    field = "\n".join(f"{number}, a, b" for number in range(20))
    rows = "".join(f'{number},"{field}",en\n' for number in range(30))
    (tmp_path / "a.csv").write_text(f"id,text,language\n{rows}")
    found = read_path(tmp_path / "a.csv")
    assert found.texts == [field] * 30 and not found.rejected
    words = field.replace("1", "one").replace("2", "two")  # its lines don't begin with a number, as rows do
    (tmp_path / "b.csv").write_text(
        "id,text,language\n" + "".join(f"{n},A text.,en\n" for n in range(40)) + f'41,"{words}",en\n'
    )
    assert read_path(tmp_path / "b.csv").texts[-1] == words


def test_text_full_of_commas_is_separated_by_what_the_header_has(tmp_path: Path) -> None:
    for mark, ending in ((";", "csv"), ("|", "psv"), ("\t", "tab"), ("^", "csv"), ("~", "csv"), ("\x01", "csv")):
        texts = [
            f"A text, of {number}, with commas, of which some say: {'so, ' * (number % 3)}it is."
            for number in range(30)
        ]
        rows = "".join(f"{number}{mark}{text}\n" for number, text in enumerate(texts))
        (tmp_path / f"a.{ending}").write_text(f"id{mark}text\n{rows}")
        assert read_path(tmp_path / f"a.{ending}").texts == texts, mark


def test_the_null_of_data_bases_is_null_and_a_year_may_head_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "id\ttext\t2020\n" + "".join(f"{n}\tA text {n}\t1\n{n}\t\\N\t1\n" for n in range(9))
    )
    found = read_path(tmp_path / "a.tsv")
    assert found.texts == [f"A text {n}" for n in range(9)] and found.columns == {"text": [18, 9, 9]}
    assert {record.reason for record in found.rejected} == {"text_is_null"}


def test_a_table_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{number},{doubled(text)}\n" for number, text in enumerate(DOCS)))
    with pytest.raises(DataError, match="no header line"):
        read_path(tmp_path / "a.csv")


def test_spaces_after_separators_are_no_part_of_the_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id, text, label\n" + "".join(f"{n}, {doubled(t)}, x\n" for n, t in enumerate(DOCS))
    )
    found = read_path(tmp_path / "a.csv")
    assert found.texts == DOCS and list(found.columns) == ["text"]


SENTENCE = "A sentence about the sea, and the ships on it; the number is {}."


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("id,text", '{0},"{1}"'),
        ("id\ttext", "{0}\t{1}"),
        ('"id";"story"', '"{0}";"{1}"'),
        ("\ufefffull name, Text", 'No {0}, "{1}"'),
    ],
)
@pytest.mark.parametrize("rows", [9, 20_000])
def test_a_table_with_the_ending_of_a_text_is_read_by_rows(tmp_path: Path, header: str, row: str, rows: int) -> None:
    texts = [SENTENCE.format(number) for number in range(rows)]
    lines = [header, *(row.format(number, text) for number, text in enumerate(texts)), ""]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    found = read_path(tmp_path / "a.txt")
    assert found.texts == texts and not found.rejected
    assert f"{tmp_path / 'a.txt'} holds a table: each row is a document." in found.settings.notes
    for file in find_files([str(tmp_path)]):
        assert read_simple(Span(file)) is None, "the quick way must leave it to the reader"


def test_a_table_without_text_is_one_document_with_a_warning_and_prose_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x,y,z\n" + "1,2,3\n" * 30)
    found = read_path(tmp_path / "a.txt")
    assert len(found.texts) == 1 and "looks like a table (columns: x, y, z)" in found.settings.doubts[0]
    prose = "Hello,world\nIt was a dark night, and the wind blew, hard.\nNo comma here.\n"
    (tmp_path / "a.txt").write_text(prose)
    found = read_path(tmp_path / "a.txt")
    assert found.texts == [prose] and not found.settings.notes and not found.settings.doubts
