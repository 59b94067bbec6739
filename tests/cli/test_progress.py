"""What the live view and the plain lines show."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from pretrain_cli.cli.console import Console
from pretrain_cli.cli.progress import LiveProgress, PlainProgress, QuietProgress, make_progress
from pretrain_cli.cli.stage_view import StageView, amount, share, sparkline
from pretrain_cli.progress import SILENT

VALUES = {
    "loss": 3.2112, "learning_rate": 0.00123, "grad_norm": 0.812, "tokens_per_second": 8123.0,
    "validation_loss": 3.4, "tokens": 51200, "elapsed_s": 12.0,
}  # fmt: skip


def render(view: StageView, width: int) -> list[str]:
    console = RichConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(view)
    return console.file.getvalue().rstrip("\n").split("\n")  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_view_fits_the_terminal(width) -> None:
    view = StageView()
    view.start("training", 260, "steps")
    view.completed = 117
    for step in range(100):
        view.log(step, {**VALUES, "loss": 9 - step / 20})
    view.states["wandb"] = "offline, 3 MB kept"
    view.samples["My fellow citizens"] = (" of the United States, " * 20, 100)
    lines = render(view, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "117/260" in text and "loss 4.050" in text
    assert width < 80 or all(word in text for word in ("lr 1.2e-03", "validation 3.4", "8,123", "wandb", "left"))


def test_a_stage_of_bytes_shows_its_rate() -> None:
    view = StageView()
    view.start("reading", 40e6, "bytes")
    view.completed = 12.3e6
    view._started -= 1.0
    text = "\n".join(render(view, 80))
    assert "12.3 MB of 40 MB" in text and "MB/s" in text


def test_plain_lines_are_key_value_pairs(capsys) -> None:
    progress = PlainProgress(every_line=True)
    progress.stage("training", 100, "steps")
    progress.log(100, {"loss": 3.21, "tokens_per_second": 812.4})
    progress.end_stage()
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "step=100 loss=3.21 tokens_per_second=812"


def test_fast_steps_are_thinned_in_a_pipe_but_validations_are_not(capsys) -> None:
    progress = PlainProgress()
    for step in range(50):
        progress.log(step, {"loss": 3.0} | ({"validation_loss": 3.1} if step == 30 else {}))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["step=0", "step=30"]


def test_a_pipe_gets_plain_lines_and_quiet_gets_none() -> None:
    assert isinstance(make_progress(Console()), PlainProgress)
    assert type(make_progress(Console(quiet=True))) is QuietProgress


def test_later_ranks_are_silent(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert make_progress(Console()) is SILENT


def test_the_live_view_leaves_nothing_behind() -> None:
    stream = io.StringIO()
    terminal = {"TERM": "xterm-256color"}
    progress = LiveProgress(RichConsole(file=stream, width=80, force_terminal=True, highlight=False, _environ=terminal))
    progress.stage("encoding", 10, "rows")
    progress.advance(5, eta_s=3.0)
    progress.warn("one [odd] document")
    progress.close()
    assert stream.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[?25h" in stream.getvalue()
    assert "one [odd] document" in stream.getvalue()


def test_a_narrower_terminal_keeps_no_rest_of_the_last_frame() -> None:
    stream = io.StringIO()
    console = RichConsole(file=stream, width=80, force_terminal=True, force_interactive=True)
    progress = LiveProgress(console)
    progress.stage("training", 10, "steps")
    progress.note("wide")
    stream.truncate(0)
    console.width = 40  # the bar of 80 is now two lines
    progress.note("narrow")
    assert stream.getvalue().split("narrow")[0].count("\x1b[1A") == 1
    progress.close()


def test_figures_stay_where_they_are_when_their_values_change() -> None:
    view = StageView()
    view.start("training", 500, "steps")
    frames = []
    for speed, norm in ((8123.0, 1.234), (812.0, 0.9), (12_345.0, 12.0)):
        view.log(1, {**VALUES, "tokens_per_second": speed, "grad_norm": norm, "mfu": speed / 1e5})
        frames.append(
            [[line.find(word) for word in ("lr", "grad norm", "tokens/s", "MFU")] for line in render(view, 80)]
        )
    assert frames[0] == frames[1] == frames[2]


def test_a_long_course_is_drawn_from_a_part_of_it() -> None:
    view = StageView()
    view.start("training", 10**5, "steps")
    for step in range(10**5):
        view.log(step, {"loss": 9 - step / 2e4})
    assert len(view.losses) <= 1024 and sparkline(view.losses, 8) == "█▇▆▅▄▃▂▁"
    assert "loss 4.000" in "\n".join(render(view, 80))


@pytest.mark.parametrize("say", ["note", "warn"])
def test_a_command_stays_in_one_piece_and_prose_is_indented(say: str) -> None:
    stream = io.StringIO()
    progress = LiveProgress(RichConsole(file=stream, width=40, force_terminal=True, color_system=None))
    command = "wandb sync artifacts/runs/first/wandb/offline-run-20261124_120000-abcdef12"
    getattr(progress, say)(f"W&B is offline. Send the run later: {command}")
    assert command in stream.getvalue()
    stream.truncate(0)
    getattr(progress, say)("a remark [odd] that is somewhat longer than the terminal is wide")
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 2 and lines[1].startswith("  ") and "[odd]" in "".join(lines)


def test_what_holds_up_a_stage_is_shown_until_it_is_done() -> None:
    stream = io.StringIO()
    progress = LiveProgress(RichConsole(file=stream, width=80, force_terminal=True))
    progress.stage("training", 10, "steps")
    with progress.doing("saving"):
        assert progress._view.states == {"now": "saving"}
    assert progress._view.states == {}
    progress.close()


def test_an_amount_agrees_with_its_unit() -> None:
    assert [share(1, 80, "tokens"), share(1, 1, "rows"), share(3, None, "rows")] == [
        "1 of 80 tokens",
        "1 of 1 row",
        "3 rows",
    ]
    assert share(12.3e6, 40e6, "bytes") == "12.3 MB of 40 MB"
    assert [amount(1, "rows"), amount(1204, "rows"), amount(42, "seconds")] == ["1 row", "1,204 rows", "0:42"]


def test_a_sparkline_leaves_out_what_is_not_finite() -> None:
    assert sparkline([1, 2, 3, 4, float("nan")], 4) == "▁▃▆█"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_of_a_training_fits_the_terminal(width: int) -> None:
    view = StageView()
    view.start("training", 500, "steps")
    view.completed = 123
    view.facts = {"eta_s": 75.0, "budget_s": 300.0, "elapsed_s": 100.0}
    view.states = {
        "wandb": "online http://127.0.0.1:8080/tester/ptk/runs/abcdef12",
        "saving": "PAUSED, the disk is full",
    }
    for step in range(40):
        view.log(step, {
            "step": step, "tokens": 2048.0 * step, "epoch": 0.01 * step, "loss": 8 - 0.1 * step, "learning_rate": 3e-4,
            "grad_norm": 1.2, "tokens_per_second": 8123.0, "mfu": 0.41, "memory_mb": 812.5, "validation_loss": 5.5,
        })  # fmt: skip
    view.samples["The whale"] = (" swam\naway " * 20, 100)
    stream = io.StringIO()
    RichConsole(file=stream, width=width, force_terminal=True, color_system=None).print(view)
    lines = stream.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines) and len(lines) <= 12
    text = stream.getvalue()
    for part in ("123/500", "1:15 left", "1:40 of 5:00", "loss 4.1", "validation 5.5", "lr 3.0e-04", "grad norm"):
        assert part in text, part
    for part in ("tokens/s", "MFU 41.0%", "memory 812 MB", "wandb", "PAUSED", "The whale"):
        assert part in text, part
