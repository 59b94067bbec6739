"""A disk that is full or read-only costs nothing but the checkpoint that it couldn't take."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.refusals import DiskError
from pretrain_cli.storage import read_lines
from pretrain_cli.training.keeping.checkpoints import fault, staged, whole_steps
from pretrain_cli.training.keeping.metrics import Metrics
from pretrain_cli.training.keeping.saving import Saver
from pretrain_cli.training.run import train
from pretrain_cli.training.trainer import PackedTrainer
from tests.support.disks import disk, fill, free, mount
from tests.support.runs import Heard, course, record_of, small, weights_equal

pytestmark = pytest.mark.slow

STEPS = {"train__max_steps": 10, "train__save_steps": 3, "train__eval_steps": 4, "train__optimizer": "adamw"}


@pytest.fixture
def small_disk(rows: Artifacts, tmp_path: Path) -> Iterator[Artifacts]:
    """The prepared rows on a disk of 40 MB."""
    with disk(tmp_path / "disk", 40) as folder:
        for part in (rows.tokenizer, rows.data):
            shutil.copytree(part, folder / part.name)
        yield Artifacts(folder)


@pytest.fixture(scope="module")
def quiet(rows: Artifacts) -> RunFolder:
    train(small(**STEPS), rows, run_name="no-trouble")
    return rows.run("no-trouble")


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(True, id="seen before the save", marks=pytest.mark.slow),
        pytest.param(False, id="met in its middle"),
    ],
)
def test_a_full_disk_pauses_saving_and_training_goes_on(small_disk, quiet, monkeypatch, seen: bool) -> None:
    if not seen:
        monkeypatch.setattr(Saver, "_disk_has_room", lambda self: True)
    heard = Heard(step_4=lambda: fill(small_disk.root), step_8=lambda: free(small_disk.root))
    result = train(small(**STEPS), small_disk, heard, run_name="full")
    run = small_disk.run("full")
    assert result.status == "finished" and result.steps == 10
    assert [text for text in heard.warnings if "NO CHECKPOINT at step 6" in text and "step-000003" in text]
    assert heard.states["saving"] == "works again"
    assert run.checkpoint_steps() == [9, 10] and not list(run.checkpoints.glob(".*"))
    assert course(run) == course(quiet) and weights_equal(run, quiet)


@pytest.mark.slow
def test_a_disk_that_stays_full_keeps_the_last_good_checkpoint_to_finish_from(small_disk, quiet) -> None:
    heard = Heard(step_4=lambda: fill(small_disk.root))
    with pytest.raises(DiskError) as caught:
        train(small(**STEPS), small_disk, heard, run_name="full")
    run = small_disk.run("full")
    assert caught.value.exit_code == 3 and "ptk train --resume full" in caught.value.hint
    assert "step-000003" in caught.value.hint and run.checkpoint_steps() == [3] and not run.model.exists()
    free(small_disk.root)
    train(small(), small_disk, resume="full")
    assert course(run) == course(quiet) and weights_equal(run, quiet)


def test_lines_of_metrics_wait_for_room_and_none_is_lost(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 1) as folder:
        metrics = Metrics(folder / "metrics.jsonl")
        fill(folder)
        for step in range(1, 300):
            metrics.write({"step": step, "loss": 0.5})
        with pytest.raises(OSError, match="No space"):
            metrics.sync()
        free(folder)
        metrics.write({"step": 300, "loss": 0.5})
        metrics.close()
        assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == list(range(1, 301))


@pytest.mark.parametrize("refusal", [errno.EDQUOT, errno.EIO])
def test_lines_of_metrics_wait_for_a_quota_or_a_share_that_is_away(tmp_path: Path, monkeypatch, refusal: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(refusal, os.strerror(refusal))

    metrics = Metrics(tmp_path / "metrics.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        metrics.write({"step": 1, "loss": 0.5})
        with pytest.raises(OSError, match=os.strerror(refusal)):
            metrics.sync()
    metrics.write({"step": 2, "loss": 0.5})
    metrics.sync()
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_checkpoint_that_cannot_be_read_back_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    """What a disk may do that reports no error: fewer bytes than were written, or others."""
    run = RunFolder(tmp_path / "torn")

    def write(tear: Callable[[bytes], bytes]) -> None:
        with staged(run, 1) as folder:
            save_file({"weight": torch.arange(999.0)}, folder / "model.safetensors")
            torch.save({"moment": torch.arange(999.0)}, folder / "optimizer.pt")
            (folder / "trainer_state.json").write_text('{"global_step": 1}')
            (folder / name).write_bytes(tear((folder / name).read_bytes()))

    tears = [lambda text: text[:-1], lambda text: b""]
    if name == "optimizer.pt":
        tears.append(lambda text: text.replace(torch.tensor([500.0]).numpy().tobytes(), b"\0\0\0\0", 1))
    for tear in tears:
        with pytest.raises(OSError, match=name if name != "optimizer.pt" else None):
            write(tear)
        assert not list(run.checkpoints.iterdir())
    write(lambda text: text)
    assert run.checkpoint_steps() == [1] and not fault(run.checkpoint(1))


def read_only(folder: Path) -> Callable[[], None]:
    """Put a read-only file system in the place of ``folder``."""

    def remount() -> None:
        assert mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(folder))

    return remount


@pytest.mark.slow
def test_a_checkpoint_folder_that_becomes_read_only_ends_nothing(small_disk) -> None:
    run = small_disk.run("sealed")
    heard = Heard(step_4=read_only(run.checkpoints), step_8=lambda: os.system(f"umount -l '{run.checkpoints}'"))
    assert train(small(**STEPS), small_disk, heard, run_name="sealed").status == "finished"
    assert [text for text in heard.warnings if "NO CHECKPOINT at step 6: Read-only file system" in text]
    assert run.checkpoint_steps() == [9, 10]


def test_a_read_only_artifact_folder_is_an_error_that_says_what_to_do(small_disk) -> None:
    assert mount("-o", "remount,ro", str(small_disk.root))
    with pytest.raises(UsageError, match="read-only") as caught:
        train(small(**STEPS), small_disk, run_name="sealed")
    assert "--artifacts" in caught.value.hint


def test_too_little_disk_for_the_run_is_said_at_the_start(rows: Artifacts, monkeypatch) -> None:
    usage = shutil.disk_usage(rows.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000_000))
    heard = Heard()
    train(small(train__max_steps=1, train__save_steps=0), rows, heard, run_name="tight")
    assert any("9 MB free, and the run needs up to" in text for text in heard.warnings)
    assert record_of(rows.run("tight")).status == "finished"


@pytest.mark.parametrize(
    "text", ["[]", '{"files": []}', '{"files": {"a": [1, 2, 3]}}', '{"files": {"a": 1}}', "[" * 9999]
)
def test_a_manifest_that_is_none_leaves_its_checkpoint_aside(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.checkpoint(1).mkdir(parents=True)
    (run.checkpoint(1) / "manifest.json").write_text(text)
    assert fault(run.checkpoint(1)).startswith("manifest.json is damaged")
    assert whole_steps(run) == [1]


def test_a_checkpoint_that_vanishes_while_it_is_read_ends_the_resume(rows: Artifacts, monkeypatch) -> None:
    train(small(**{**STEPS, "train__max_steps": 4}), rows, run_name="vanishing")
    run, make = rows.run("vanishing"), PackedTrainer.create_optimizer

    def vanishing(self: PackedTrainer, model: torch.nn.Module | None = None) -> Any:
        shutil.rmtree(run.checkpoints)
        return make(self, model)

    monkeypatch.setattr(PackedTrainer, "create_optimizer", vanishing)
    with pytest.raises(ModelError, match="vanished while it was read"):
        train(small(**{**STEPS, "train__max_steps": 8}), rows, resume="vanishing")
