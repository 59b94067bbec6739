"""Nothing that a text, a model, a file or a run is called or says reaches a terminal as a command to it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from pretrain_cli.cli.console import Console
from pretrain_cli.cli.progress import PlainProgress, make_progress
from pretrain_cli.cli.streams import Stream
from pretrain_cli.cli.visible import json_text, visible
from pretrain_cli.errors import DataError
from tests.support.commands import ENVIRONMENT
from tests.support.tiny import make_model

EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x9b2Jc\x7fd\re\x00"
SAFE = "a␛]52;c;ZXZpbA==␇b\\x9b2Jc␡d␍e␀"
ORDINARY = "naïve 日本語 🐋\ttab\nline"


def in_terminal(folder: Path, *arguments: str, stdin: str = "") -> str:
    """What a terminal gets from one command, stdout and stderr together, as people run it."""
    control, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(terminal)
    said = b""
    try:
        while block := os.read(control, 1 << 16):
            said += block
    except OSError:  # how a terminal's end is told on Linux
        pass
    child.wait(timeout=60)
    os.close(control)
    return said.decode("utf-8")


def harmful(text: str) -> bool:
    return any(mark in text for mark in ("\x1b]52", "\x9b2J", "\x07", "\x7f", "\x00"))


def test_control_characters_become_symbols_and_text_stays() -> None:
    assert visible(EVIL) == SAFE and not harmful(visible(EVIL))
    assert visible(ORDINARY) == ORDINARY
    assert visible(os.fsdecode(b"a\x9b2J")) == "a\\x9b2J"
    assert json.loads(json_text(json.dumps(EVIL, ensure_ascii=False))) == EVIL
    assert not harmful(json_text(json.dumps(EVIL, ensure_ascii=False)))


def test_everything_the_console_prints_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(plain=True)
    console.result(EVIL, [(EVIL, EVIL)], {})
    console.text(EVIL)
    console.warn(EVIL)
    console.next(EVIL)
    console.error(DataError(EVIL, EVIL))
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.table(table)
    Console(json=True).print_json({EVIL: EVIL})
    progress = make_progress(console)
    assert isinstance(progress, PlainProgress)
    for say in (progress.note, progress.warn, progress.stage):
        say(EVIL)
    progress.status(EVIL, EVIL)
    progress.sample(EVIL, EVIL, 1)
    said = capsys.readouterr()
    assert not harmful(said.out) and not harmful(said.err)
    assert SAFE.replace("␍", "␍") in said.out and "␛]52" in said.err


def test_a_models_text_is_exact_in_a_pipe_and_with_raw(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    Console().written(EVIL)
    assert capsys.readouterr().out == f"{EVIL}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Console().written(EVIL)
    assert capsys.readouterr().out == f"{SAFE}\n"
    Console(raw=True).written(EVIL)
    assert capsys.readouterr().out == f"{EVIL}\n"


def test_rich_still_colors_and_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    Stream(file=sys.stdout, force_terminal=True, color_system="standard", highlight=False).print("[bold]x[/]\x1b[5m")
    assert capsys.readouterr().out == "\x1b[1mx\x1b[0m␛[5m\n"


@pytest.mark.slow
def test_errors_and_lists_in_a_terminal(empty: Path) -> None:
    name = "x\x1b]52;c;ZXZpbA==\x07"
    assert "x␛]52;c;ZXZpbA==␇.txt doesn't exist" in in_terminal(empty, "prepare", f"{name}.txt").replace("\r\n", "")
    run = empty / "artifacts" / "runs" / name
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"run": name, "status": "finished", "base": "b\x9b2J"}))
    for words in (["runs", "list"], ["runs", "show", name], ["generate", "x", "--model", name]):
        assert not harmful(in_terminal(empty, *words)), words


@pytest.mark.slow
def test_generate_escapes_in_a_terminal_unless_raw(empty: Path) -> None:
    line = ("generate", "Hi\x1b]52;c;ZXZpbA==\x07", "--model", str(make_model(empty / "tiny")), "--max-tokens", "4")
    for more in ((), ("--samples", "2"), ("--probabilities",), ("--json",)):
        assert not harmful(in_terminal(empty, *line, *more)), more
    assert "\x1b]52;c;ZXZpbA==\x07" in in_terminal(empty, *line, "--raw")
    for more in ((), ("--samples", "2")):
        done = subprocess.run(
            [sys.executable, "-m", "pretrain_cli", *line, *more],
            cwd=empty, capture_output=True, text=True, env=ENVIRONMENT, timeout=60,
        )  # fmt: skip
        assert "Hi\x1b]52;c;ZXZpbA==\x07" in done.stdout, done.stderr


@pytest.mark.slow
def test_inspect_in_a_terminal(empty: Path) -> None:
    (empty / "a\x1b]52;c;b\x07.txt").write_text(f"{EVIL} never mind how long precisely. " * 300)
    said = in_terminal(empty, "prepare", "a\x1b]52;c;b\x07.txt", "--set", "tokenizer.vocab_size=300")
    for words in (["inspect"], ["inspect", "--tokens"], ["inspect", "--json"], ["inspect", "--stats"]):
        said += in_terminal(empty, *words)
    assert not harmful(said)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_line_end_in_a_files_name_breaks_no_line(ptk, empty: Path) -> None:
    (empty / "in").mkdir()
    names = ("one\ntwo.txt", "three\nfour.txt", "five\nsix.pdf")
    for number, name in enumerate(names):
        (empty / "in" / name).write_text(f"{number} words of a text. " * 500, encoding="utf-8")
    outcome = ptk("prepare", "in", "--set", "data.split=tail")
    assert outcome.code == 0
    lines = [*outcome.out.splitlines(), *outcome.err.splitlines()]
    assert not [line for line in lines if line.startswith(("two", "four", "six"))]
    assert "five␊six.pdf" in outcome.err
