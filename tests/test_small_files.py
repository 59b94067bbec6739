"""A file with holes, a pipe or a device in place of one of ptk's own files takes neither memory nor time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import DataError, ModelError
from pretrain_cli.foreign import keep_aside
from pretrain_cli.published import checkpoint_files, recorded_files
from pretrain_cli.run_record import parse_run_config
from pretrain_cli.runs.summary import list_runs
from pretrain_cli.small_files import first_word, small_bytes
from pretrain_cli.storage import read_lines
from pretrain_cli.training.keeping.checkpoints import fault, whole_steps

HUGE = 1 << 36


def holes(path: Path) -> Path:
    """A file of 69 GB that takes none on the disk, as an archive may bring it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{}")
    os.truncate(path, HUGE)
    return path


def test_only_small_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"run-001\n")
    assert small_bytes(tmp_path / "a") == b"run-001\n" and first_word(tmp_path / "a") == "run-001"
    with pytest.raises(OSError, match="too large"):
        small_bytes(holes(tmp_path / "b"))
    for other in (tmp_path / "b", tmp_path / "none", tmp_path):
        assert first_word(other) == ""
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a file"):
            small_bytes(tmp_path / "pipe")


def test_no_record_with_holes_is_read_whole(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    step = run.checkpoint(3)
    for file in (run.config, run.metrics, step / "manifest.json", run.model / ".ptk-files.json", tmp_path / "latest"):
        holes(file)
    run.record.write_text("{}")
    for read in (lambda: parse_run_config(run), lambda: recorded_files(step), lambda: recorded_files(run.model)):
        with pytest.raises(ModelError, match="too large"):
            read()
    with pytest.raises(DataError, match="too large"):
        read_lines(run.metrics)
    assert "too large" in fault(step) and whole_steps(run) == [3]
    assert checkpoint_files(step) == {"manifest.json"}
    assert [each.damage for each in list_runs(Artifacts(tmp_path))] != [""]
    with pytest.raises(ModelError, match="No run in"):
        Artifacts(tmp_path).latest_run()


def test_a_record_with_holes_is_kept_aside(tmp_path: Path) -> None:
    assert "kept as report.json.old" in keep_aside(holes(tmp_path / "report.json"))


@pytest.mark.parametrize(
    "line",
    [
        *({"step": True}, {"step": 10**400}, {"step": "1"}, {"step": 1.5}, {"step": None}),
        *({"step": 1, "tokens": "x"}, {"step": 1, "tokens": 1e999}, {"step": 1, "loss": "1"}, {"step": 1, "loss": [1]}),
        *({"step": 1, "loss": 10**400}, {"step": 1, "memory_mb": {}}),
    ],
)
def test_a_line_of_metrics_with_values_of_other_kinds_is_left_out(tmp_path: Path, line: dict[str, Any]) -> None:
    good = {"step": 2, "tokens": 3, "loss": float("nan"), "validation_loss": None, "prompt": "a", "text": "b"}
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(good)}\n")
    assert [each["step"] for each in read_lines(tmp_path / "metrics.jsonl")] == [2]
