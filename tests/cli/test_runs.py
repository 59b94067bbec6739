"""`ptk runs`, on records as a training run leaves them."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.storage import write_json, write_text


@pytest.fixture
def two_runs(empty):
    artifacts = Artifacts(empty / "artifacts")
    for index, name in enumerate(("first", "second")):
        run = artifacts.run(name)
        write_json(
            run.record, {"status": "finished", "started": "2026-01-01T10:00:00", "steps": 2, "tokens": 512, "base": ""}
        )
        write_text(run.config, f"[train]\nseed = {index}\n")
        lines = [{"step": step, "loss": 5.0 - step - index} for step in (1, 2)]
        write_text(run.metrics, "".join(json.dumps(line) + "\n" for line in lines))
        run.model.mkdir()
    write_text(artifacts.latest, "second\n")
    return artifacts


def test_list_shows_each_run(ptk, two_runs) -> None:
    assert [run["name"] for run in ptk("runs", "list", "--json").json["runs"]] == ["first", "second"]
    assert "first" in ptk("runs", "list").out


@pytest.mark.skipif(shutil.which("script") is None, reason="`script` makes the terminal")
@pytest.mark.parametrize("columns", [40, 80, 100, 120])
def test_a_narrow_terminal_shows_every_name_and_loss_whole(two_runs, columns: int) -> None:
    """In a real terminal, of the width that COLUMNS says; the second run's loss has gone far."""
    far = two_runs.run("second").metrics
    write_text(far, json.dumps({"step": 1, "loss": 3.4e22}) + "\n")
    command = f"COLUMNS={columns} {sys.executable} -m pretrain_cli runs list"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in done.stdout.splitlines()]
    assert done.returncode == 0
    for name in ("first", "second"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert "finished" in line and "…" not in line and len(line) <= columns


def test_eighty_columns_have_room_for_every_figure(two_runs) -> None:
    record = {"status": "interrupted", "started": "2026-01-01T10:00:00", "steps": 2, "tokens": 110_592}
    lines = [{"step": 1, "loss": 3.25, "validation_loss": 3.5, "validation_bits_per_byte": 1.25, "elapsed_s": 7500}]
    for base in ("", "HuggingFaceTB/SmolLM2-135M"):
        for name in ("first", "second"):
            write_json(two_runs.run(name).record, record | {"base": base})
            write_text(two_runs.run(name).metrics, json.dumps(lines[0]) + "\n")
        command = f"COLUMNS=80 {sys.executable} -m pretrain_cli runs list"
        done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True)
        (line,) = [line for line in done.stdout.splitlines() if "second" in line]
        assert all(figure in line for figure in ("110,592", "3.500", "1.250", "2:05 h")), line


def test_no_runs_is_no_error(ptk) -> None:
    outcome = ptk("runs", "list")
    assert outcome.code == 0 and "ptk train" in outcome.err


def test_compare_names_the_settings_that_differ(ptk, two_runs) -> None:
    assert ptk("runs", "compare", "first", "second", "--json").json["differences"] == {"train.seed": [0, 1]}


def test_remove_follows_no_link_among_a_runs_teachers(ptk, two_runs) -> None:
    """Two links back to the run itself would be 2⁴⁰ ways through it."""
    first, second = two_runs.run("first"), two_runs.run("second")
    first.teachers.runs.mkdir(parents=True)
    for name in ("back", "again"):
        (first.teachers.runs / name).symlink_to(first.path)
    (first.teachers.runs / "other").symlink_to(second.path)
    before = sorted(second.path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "pretrain_cli", "runs", "remove", "first", "--yes"], capture_output=True, timeout=60
    )
    assert done.returncode == 0 and not first.record.exists()
    assert sorted(second.path.rglob("*")) == before


def test_remove_asks_unless_told(ptk, two_runs, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused = ptk("runs", "remove", "first")
    assert refused.code == 2 and "--yes" in refused.err
    assert ptk("runs", "remove", "first", "--yes").code == 0
    assert two_runs.run_names() == ["second"]


@pytest.mark.parametrize(("typed", "left"), [("", 2), ("\n", 2), ("n\n", 2), ("y\n", 1)])
def test_what_is_typed_decides_and_the_end_of_the_input_is_a_no(
    ptk, two_runs, monkeypatch, typed: str, left: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(typed))
    outcome = ptk("runs", "remove", "first")
    assert outcome.code == 0 and "Remove first (" in outcome.err and "Ctrl-C" not in outcome.err
    assert len(two_runs.run_names()) == left


def test_an_unknown_run_names_those_that_exist(ptk, two_runs) -> None:
    outcome = ptk("runs", "show", "thrid")
    assert outcome.code == 4 and "second" in outcome.err


def test_show_tells_speed_and_memory_as_training_told_them(ptk, two_runs) -> None:
    run = two_runs.run("first")
    write_text(
        run.metrics, json.dumps({"step": 2, "loss": 3.0, "tokens_per_second": 1000.0, "memory_mb": 600.0}) + "\n"
    )
    assert "1,000 tokens/s" in (running := ptk("runs", "show", "first").out) and "600 MB" in running
    result = {
        "run": "first", "status": "finished", "steps": 2, "tokens": 512, "tokens_per_second": 900.0, "seconds": 1.0,
        "train_loss": 3.0, "validation_loss": None, "validation_bits_per_byte": None, "model": "m",
    }  # fmt: skip
    write_json(run.record, {**json.loads(run.record.read_text()), "result": result, "peak_memory_bytes": 700_000_000})
    assert "900 tokens/s" in (ended := ptk("runs", "show", "first").out) and "700 MB" in ended
    assert "1,000 tokens/s" not in ended and "600 MB" not in ended


def test_show_tells_what_a_person_asks_and_json_has_the_whole_record(ptk, two_runs) -> None:
    shown = ptk("runs", "show", "first").out
    assert "finished" in shown and "from scratch" in shown and "{" not in shown
    assert ptk("runs", "show", "first", "--json").json["config"] == {"train": {"seed": 0}}


def test_wandb_links_stand_under_the_list(ptk, two_runs) -> None:
    run = two_runs.run("first")
    link = "https://wandb.example/first"
    write_json(run.record, {"status": "finished", "base": "", "wandb": {"url": link}})
    assert f"first on W&B: {link}" in ptk("runs", "list").out
    assert link in ptk("runs", "show", "first").out
    ptk("runs", "compare", "first", "second")
    assert link in two_runs.comparison("first", "second").read_text("utf-8")


def test_in_a_pipe_no_cell_is_folded(ptk, two_runs) -> None:
    lines = ptk("runs", "list").out.splitlines()
    assert lines[0].split() == [
        "run",
        "started",
        "status",
        "base",
        "tokens",
        "train",
        "loss",
        "validation",
        "loss",
        "bits/byte",
        "time",
        "steps",
        "disk",
    ]
    assert lines[1].startswith("first") and "2026-01-01 10:00" in lines[1]


def test_compare_draws_the_curves_and_names_the_page(ptk, two_runs) -> None:
    shown = ptk("runs", "compare", "first", "second").out
    assert "loss" in shown and "\u2588\u2581" in shown and "train.seed" in shown
    assert "comparisons/first--second.html" in shown and two_runs.comparison("first", "second").is_file()


def test_keep_best_says_how_much_it_frees(ptk, two_runs) -> None:
    (two_runs.run("first").model / "model.safetensors").write_bytes(bytes(3_000_000))
    refused = ptk("runs", "remove", "--keep-best", "1")
    assert refused.code == 2 and "first (3 MB)" in refused.err
    assert ptk("runs", "remove", "--keep-best", "1", "--yes", "--json").json["bytes"] > 3_000_000
