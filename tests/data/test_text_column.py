"""The text column is chosen by a sample of records, and ids are never taken for text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.errors import DataError
from tests.support.reading import read_path

DOCS = [f"Document {number} tells of the sea, of ships and of the long way home." * 3 for number in range(40)]
RECORDS = [{"id": f"rec-{number:04d}", "story": text} for number, text in enumerate(DOCS)]


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "first",
    [{"id": "rec-x", "story": None}, {"version": "1.1", "created": "2024-01-01"}, {"id": "rec-x"}, "only a string", 7],
)
def test_the_first_record_does_not_decide(tmp_path: Path, first: Any) -> None:
    found = read_path(write_lines(tmp_path / "a.jsonl", [first, *RECORDS]))
    assert found.texts[-40:] == DOCS and list(found.columns) == ["story"]
    sampled, filled, _ = found.columns["story"]
    assert filled == 40 and sampled == 40 + isinstance(first, dict)


def test_nulls_are_counted_and_the_share_is_told(tmp_path: Path) -> None:
    records = [{**record, "story": None} if number % 4 == 0 else record for number, record in enumerate(RECORDS)]
    found = read_path(write_lines(tmp_path / "a.jsonl", records))
    assert found.columns == {"story": [40, 30, 10]}
    assert {record.reason for record in found.rejected} == {"text_is_null"} and len(found.rejected) == 10


@pytest.mark.parametrize(
    "record",
    [
        {"id": "rec-1", "n": 5},
        {"url": "https://example.org/a", "date": "2024-01-01", "label": "positive"},
        {"id": "rec-1", "paragraphs": ["A text in a list, which is no string.", "And another one of them."] * 9},
        {"title": "The title of it", "messages": [{"role": "user", "content": "Tell me of the sea and of ships."}] * 9},
        {"text": "", "instruction": "Tell me of the sea and of ships.", "output": "It is wide, and they sail on it."},
        {"text": "B", "instruction": "Tell me of the sea and of ships.", "output": "It is wide, and they sail on it."},
        {"text": ["A list under the usual name.", "And another text in it."]},
        {"question": "What is the sea made of?", "answer": "Water and salt, for the most part."},
    ],
)
def test_ids_lists_and_two_texts_are_refused_with_the_remedy(tmp_path: Path, record: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        read_path(write_lines(tmp_path / "a.jsonl", [record] * 20))
    assert "text" in caught.value.message and ("--text-column" in caught.value.hint or "jq" in caught.value.hint)


def test_the_longest_text_by_far_is_taken_and_one_inside_an_object_is_found(tmp_path: Path) -> None:
    records = [{"title": "A title of words", "date": "Mon 1 Jan", "article": text} for text in DOCS]
    assert read_path(write_lines(tmp_path / "a.jsonl", records)).texts == DOCS
    found = read_path(write_lines(tmp_path / "b.jsonl", [{"_id": "1", "_source": {"text": text}} for text in DOCS]))
    assert found.texts == DOCS and list(found.columns) == ["_source.text"]
    assert read_path(tmp_path / "b.jsonl", column="_source.text").texts == DOCS


ROWS = [{"text": text, "id": number} for number, text in enumerate(DOCS)]
BY_ROW = {str(number): row for number, row in enumerate(ROWS)}
BY_COLUMN = {name: {str(number): row[name] for number, row in enumerate(ROWS)} for name in ("text", "id")}
SHAPES: dict[str, Any] = {
    "records": ROWS,
    "wrapped": {"version": "1.1", "data": ROWS},
    "wrapped twice": {"meta": {"n": 40}, "response": {"status": "all is well", "docs": ROWS}},
    "lists": {"text": DOCS, "id": list(range(40))},
    "lists inside": {"version": "1", "data": {"text": DOCS, "id": list(range(40))}},
    "by column": BY_COLUMN,
    "by one column": {"text": BY_COLUMN["text"]},
    "by row": BY_ROW,
    "split": {"columns": ["id", "text"], "index": list(range(40)), "data": [[n, text] for n, text in enumerate(DOCS)]},
    "table": {"schema": {"fields": [{"name": "text", "type": "string"}]}, "data": ROWS},
    "squad": {
        "version": "2",
        "data": [{"title": "A_b", "paragraphs": [{"context": text, "qas": []}]} for text in DOCS],
    },
    "titled": {"data": [{"title": "A long title", "paragraphs": [{"context": text}]} for text in DOCS]},
    "strings": DOCS,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_records_of_a_json_file_are_found_whatever_is_around_them(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SHAPES[shape]))
    assert read_path(tmp_path / "a.json").texts == DOCS
    (tmp_path / "b.json").write_text(json.dumps(SHAPES[shape], indent=2))
    found = read_path(tmp_path / "b.json")
    assert found.texts == DOCS
    for name in found.columns:  # as it is told, it can be given
        assert read_path(tmp_path / "a.json", column=name).texts == DOCS


@pytest.mark.parametrize("label", ["A", "https://example.org/1", ""])
def test_labels_under_the_usual_name_are_not_taken_for_text(tmp_path: Path, label: str) -> None:
    found = read_path(write_lines(tmp_path / "a.jsonl", [{"text": label, "story": text} for text in DOCS]))
    assert found.texts == DOCS and list(found.columns) == ["story"]


def test_of_thousands_of_columns_an_error_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({f"article {number}": text for number, text in enumerate(DOCS)}))
    with pytest.raises(DataError, match="article 11, and 28 more"):
        read_path(tmp_path / "a.json")


WRITTEN: dict[str, str] = {
    "a list": json.dumps(ROWS),
    "a list over lines": json.dumps(ROWS, indent=1),
    "objects over lines": "".join(json.dumps(row, indent=2) + "\n" for row in ROWS),
    "a text sequence": "".join(f"\x1e{json.dumps(row)}\n" for row in ROWS),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_records_are_found_however_they_follow_each_other(tmp_path: Path, ending: str, written: str) -> None:
    (tmp_path / f"a.{ending}").write_text(WRITTEN[written])
    assert read_path(tmp_path / f"a.{ending}").texts == DOCS


def test_one_object_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"text": DOCS[0], "tags": ["a", "b"], "sentences": [{"text": "A b c."}]})
    )
    assert read_path(tmp_path / "a.json").texts == DOCS[:1]


def test_each_part_of_a_large_file_takes_the_same_column_and_its_own_lines(tmp_path: Path) -> None:
    from pretrain_cli.data.encoding.shard_plan import plan_shards
    from pretrain_cli.data.reading.inputs import find_files
    from pretrain_cli.data.reading.read import read
    from pretrain_cli.data.reading.settings import ReadSettings

    odd = [{"id": "rec two words", "story": None} for _ in range(40)]
    path = write_lines(tmp_path / "a.jsonl", [*RECORDS, *odd])
    texts: list[str] = []
    for shard in plan_shards(find_files([str(path)]), 2000):
        for record in read(shard.spans[0], ReadSettings()):
            texts += getattr(record, "texts", [getattr(record, "text", "")])
    assert [text for text in texts if text] == DOCS


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le"])
def test_records_in_another_encoding_are_read_as_data_encoding_says_or_as_found(tmp_path: Path, encoding: str) -> None:
    texts = [f"Ein schöner Tag, größer als {number} andere, für die Straße am Fluß." for number in range(40)]
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (tmp_path / "a.jsonl").write_bytes(content.encode(encoding))
    assert read_path(tmp_path / "a.jsonl", encoding=encoding).texts == texts
    assert read_path(tmp_path / "a.jsonl").texts == texts
    (tmp_path / "a.json").write_bytes(
        json.dumps([{"text": text} for text in texts], ensure_ascii=False).encode(encoding)
    )
    assert read_path(tmp_path / "a.json", encoding=encoding).texts == texts


def test_a_damaged_byte_of_a_jsonl_file_costs_its_line_only(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text + " äöü"}, ensure_ascii=False).encode() + b"\n" for text in DOCS]
    (tmp_path / "a.jsonl").write_bytes(b"".join([*lines[:3], lines[3].replace(b"sea", b"s\xffa"), *lines[4:]] * 3))
    found = read_path(tmp_path / "a.jsonl")
    assert len(found.texts) == 117 and [record.line for record in found.rejected] == [4, 44, 84]
