"""Lines break between words, and a command stays whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from pretrain_cli.cli.console import print_broken
from pretrain_cli.cli.wrapping import break_lines

WORDS = "size micro, 2 layers of 128: about 12,345,678 tokens per weight in its matrices at artifacts/data/somewhere"


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_no_word_or_number_is_cut(width: int) -> None:
    lines = break_lines(WORDS, width)
    assert " ".join(lines) == WORDS
    assert all(len(line) <= width or " " not in line for line in lines)


def test_a_number_stays_with_its_unit() -> None:
    text = "start 48 s, steps 10 s, checkpoints 1.1 s, peak 667 MB of 13.2 GB in 3 steps"
    for width in range(12, 60):
        lines = break_lines(text, width)
        assert " ".join(lines) == text
        assert not any(line.startswith(("s,", "MB", "GB")) for line in lines)


def test_a_command_stays_in_one_piece() -> None:
    command = "wandb sync artifacts/runs/first/wandb/offline-run-20260101_100000-abcdefgh"
    assert break_lines(f"W&B is offline. Send it later: {command}", 60) == ["W&B is offline. Send it later:", command]
    assert break_lines("Start one: ptk train", 60) == ["Start one: ptk train"]
    assert break_lines("", 60) == [""]


def test_the_first_line_leaves_room_for_its_mark_and_the_others_are_indented() -> None:
    stream = io.StringIO()
    print_broken(RichConsole(file=stream, width=30, force_terminal=True, no_color=True, highlight=False),
                 "[yellow]Warning:[/] ", "one two three four five six seven", indent=2)  # fmt: skip
    assert stream.getvalue().splitlines() == ["Warning: one two three four", "  five six seven"]


def test_a_pipe_gets_one_line() -> None:
    stream = io.StringIO()
    print_broken(RichConsole(file=stream, width=30, highlight=False), "Warning: ", WORDS)
    assert stream.getvalue() == f"Warning: {WORDS}\n"
