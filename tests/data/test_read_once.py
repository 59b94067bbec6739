"""Standard input and pipes are read once, whatever comes out of them; JSON is never taken for one long text."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_cli.data.reading import pipes
from pretrain_cli.data.reading.input_files import open_bytes
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.small_files import read_small
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from tests.support.mixed import text
from tests.support.preparing import Preparing, texts
from tests.support.reading import read_path

DOCS = [text(f"document {number}") for number in range(20)]
LINES = "".join(json.dumps({"id": f"rec-{n}", "text": doc}) + "\n" for n, doc in enumerate(DOCS)).encode()
JSON = {
    "lines": LINES,
    "one line": json.dumps({"text": DOCS[0]}).encode(),
    "list": json.dumps([{"text": doc} for doc in DOCS]).encode(),
    "pretty": json.dumps({"version": 1, "data": [{"text": doc} for doc in DOCS]}, indent=2).encode(),
    "mark": b"\xef\xbb\xbf" + LINES,
}


@pytest.mark.parametrize("name", ["data", "data.txt", "data.dump", "data.jsonlines", "data.ndjson"])
@pytest.mark.parametrize("kind", JSON)
def test_json_is_read_as_records_whatever_the_name_of_the_file(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(JSON[kind])
    if name.endswith(("jsonlines", "ndjson")) and kind not in ("lines", "one line", "mark"):
        return
    found = read_path(tmp_path / name)
    assert found.texts == (DOCS[:1] if kind == "one line" else DOCS)
    assert bool(found.settings.notes) == (not name.endswith(("jsonlines", "ndjson")))


@pytest.mark.parametrize(
    "content", ["{curly} text", "[1] A footnote, and [2]", "{}", "[]", '{"a', "{'a': 1}", "[[1, 2]]"]
)
def test_text_with_braces_is_text(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    found = read_path(tmp_path / "a.txt")
    assert found.texts == [content]


@pytest.mark.parametrize("content", [LINES, DOCS[0].encode()], ids=["lines", "text"])
def test_standard_input_is_recognized(preparing: Preparing, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    result, artifacts = preparing("-", validation_fraction=0)
    assert result.documents == (20 if content == LINES else 1)
    manifest = read_manifest(artifacts)
    assert [entry.path for entry in manifest.inputs] == ["-"]
    assert all(warning.startswith("standard input holds") for warning in result.warnings)


def test_a_pipe_is_read_once_and_completely(preparing: Preparing, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    threading.Thread(target=(tmp_path / "pipe.jsonl").write_bytes, args=(LINES * 9,), daemon=True).start()
    result, artifacts = preparing(tmp_path / "pipe.jsonl", validation_fraction=0)
    assert sorted(texts(artifacts)) == sorted(DOCS)
    assert [entry.path for entry in read_manifest(artifacts).inputs] == [str(tmp_path / "pipe.jsonl")]
    assert result.documents == 20


def test_the_output_of_a_program_is_an_input(preparing: Preparing) -> None:
    with subprocess.Popen(["echo", DOCS[0]], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        result, _ = preparing(f"/dev/fd/{program.stdout.fileno()}", validation_fraction=0)
    assert result.documents == 1


def test_a_pipe_without_a_writer_and_an_empty_one_are_errors(
    preparing: Preparing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "WRITER_WAIT_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="nothing writes into it"):
        preparing(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused(preparing: Preparing, device: str) -> None:
    with pytest.raises(DataError, match="is a device, not a file"):
        preparing(device)


@pytest.mark.parametrize("separator", ["\\n---\\n", "<|end|>"])
def test_a_separator_that_never_occurs_is_an_error_and_one_that_is_missing_somewhere_is_told(
    preparing: Preparing, tmp_path: Path, separator: str
) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(DOCS))
    with pytest.raises(DataError, match=r"occurs in no plain text file \(1 file\)"):
        preparing(tmp_path / "a.txt", document_separator=separator)
    (tmp_path / "b.txt").write_text(separator.replace("\\n", "\n").join(doc + "b" for doc in DOCS))
    result, _ = preparing(tmp_path / "a.txt", tmp_path / "b.txt", document_separator=separator, validation_fraction=0)
    assert result.documents == 21
    assert any("doesn't occur in 1 file" in note for note in result.notes) and not result.warnings


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.txt.xz"])
def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LINES)
    (found,) = find_files([str(tmp_path / name)])
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    told: list[object] = []

    def read(opened: Callable[[], object]) -> None:
        try:
            told.append(opened())
        except DataError as error:
            told.append("changed" in error.message or error)

    for opened in (lambda: open_bytes(found), lambda: read_small(found.path, found.size) is None):
        thread = threading.Thread(target=read, args=(opened,), daemon=True)
        thread.start()
        thread.join(20)
    assert told == [True, True]
