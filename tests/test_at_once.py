"""Several commands at once in one artifact folder, as processes: who is refused, who waits, who wins."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests.support.commands import ENVIRONMENT, SMALL, ok, ptk, refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows stops no process"),
]
ONE = (*SMALL, "--set", "train.ensemble=0")


def begun(folder: Path, *arguments: str, sign: str) -> subprocess.Popen[str]:
    """A command that has said ``sign``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    while sign not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two texts; the first is prepared, and a run is trained on it."""
    folder = tmp_path_factory.mktemp("at-once")
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    for name, text in (("one.txt", prose[:60_000]), ("two.txt", prose[60_000:120_000])):
        (folder / name).write_text(text, encoding="utf-8")
    ok(folder, "prepare", "one.txt", "--vocab-size", "500")
    ok(folder, "train", "--max-steps", "2", "--run", "first", *ONE)
    return folder


def test_a_second_prepare_is_refused_and_the_first_is_complete(folder: Path) -> None:
    line = ("prepare", "two.txt", "--vocab-size", "500", "--artifacts", "other")
    first = begun(folder, *line, sign="training the tokenizer")
    first.send_signal(signal.SIGSTOP)
    refused(ptk(folder, "prepare", "one.txt", "--artifacts", "other"), 2, f"pid {first.pid}", "already preparing")
    assert end(first, signal.SIGCONT)[0] == 0
    assert ok(folder, *line)["reused"]


def test_a_run_that_trains_keeps_its_rows_and_its_folder(folder: Path) -> None:
    training = begun(folder, "train", "--max-minutes", "5", "--run", "second", *ONE, sign="step=")
    refused(ptk(folder, "runs", "remove", "second", "--yes"), 2, "still training")
    ok(folder, "prepare", "two.txt", "--vocab-size", "500")
    code, said = end(training, signal.SIGTERM)
    assert code == 143 and "--resume second" in said, said
    steps = json.loads((folder / "artifacts" / "runs" / "second" / "run.json").read_text())["steps"] + 2
    resume = ("train", "--resume", "second", "--max-steps", str(steps))
    refused(ptk(folder, *resume), 3, "data fingerprint")
    ok(folder, "prepare", "one.txt", "--vocab-size", "500")
    assert ok(folder, *resume)["steps"] == steps


def test_an_export_of_a_run_that_is_removed_leaves_nothing(folder: Path) -> None:
    runs = folder / "artifacts" / "runs"
    shutil.copytree(runs / "first", runs / "third")
    before = sorted(folder.iterdir())
    exporting = begun(folder, "export", "third", "-o", "exported", sign="exporting third")
    exporting.send_signal(signal.SIGSTOP)
    ok(folder, "runs", "remove", "third", "--yes")
    code, said = end(exporting, signal.SIGCONT)
    assert code == 4 and "'third' was removed" in said and "Traceback" not in said, said
    assert sorted(folder.iterdir()) == before
