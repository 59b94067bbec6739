"""Checkpoints that are written while training continues are those that training would have waited for."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pretrain_cli.artifacts import CHECKPOINT_RECORD, Artifacts, RunFolder
from pretrain_cli.training.keeping import background, saving
from pretrain_cli.training.keeping.background import Background, GivenUp, HostCopy
from pretrain_cli.training.keeping.checkpoints import fault
from pretrain_cli.training.keeping.contents import KeepingTrainer
from pretrain_cli.training.run import train
from pretrain_cli.training.step.divergence import Diverged
from tests.support.children import nursery
from tests.support.runs import Heard, PowerCut, course, cut, record_of, small, weights_equal

STEPS = {"train__max_steps": 8, "train__save_steps": 2, "train__keep": 4, "train__optimizer": "adamw"}
BESIDE = {**STEPS, "train__background_saves": True}
TIMED = ("ptk.json", "manifest.json")  # they hold seconds


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[str]:
    """Let what is written in the background take so long; the threads that wrote."""
    plain, threads = KeepingTrainer.begin_checkpoint, []

    def begin(self, folder, copy):
        finish = plain(self, folder, copy)

        def later() -> None:
            threads.append(threading.current_thread().name)
            time.sleep(seconds)
            finish()

        return later

    monkeypatch.setattr(KeepingTrainer, "begin_checkpoint", begin)
    return threads


def files_of(run: RunFolder) -> dict[str, dict[str, object]]:
    found = {}
    for step in run.checkpoint_steps():
        folder = run.checkpoint(step)
        assert not fault(folder)
        files = json.loads((folder / CHECKPOINT_RECORD).read_text())["files"]
        found[folder.name] = {name: entry for name, entry in files.items() if name not in TIMED}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_file_has_the_bytes_of_one_that_training_waited_for(rows: Artifacts, monkeypatch, optimizer: str) -> None:
    settings = {**BESIDE, "train__optimizer": optimizer}
    train(small(**{**settings, "train__background_saves": False}), rows, run_name=f"waits-{optimizer}")
    threads = slowed(monkeypatch, 0.1)  # later steps change the weights meanwhile
    train(small(**settings), rows, run_name=f"beside-{optimizer}")
    waits, beside = rows.run(f"waits-{optimizer}"), rows.run(f"beside-{optimizer}")
    assert threads == ["checkpoint"] * 3 + ["MainThread"]  # the last one, with nothing to train after it
    assert list(files_of(beside)) == [f"step-{step:06d}" for step in (2, 4, 6, 8)]
    assert files_of(beside) == files_of(waits) and weights_equal(beside, waits)


def test_a_small_checkpoint_is_written_at_once(rows: Artifacts, monkeypatch) -> None:
    threads = slowed(monkeypatch, 0)
    train(small(**STEPS), rows)
    assert set(threads) == {"MainThread"}


@pytest.mark.slow
def test_a_cut_run_resumes_from_what_was_whole(rows: Artifacts, monkeypatch) -> None:
    train(small(**BESIDE), rows, run_name="undisturbed")
    slowed(monkeypatch, 0.3)
    with pytest.raises(PowerCut):
        train(small(**BESIDE), rows, Heard(step_5=cut), run_name="cut")
    run = rows.run("cut")
    assert run.checkpoint_steps() in ([2], [2, 4]) and not any(map(fault, map(run.checkpoint, run.checkpoint_steps())))
    assert record_of(run).checkpoint_step == 2
    train(small(**BESIDE), rows, resume="cut")
    assert weights_equal(run, rows.run("undisturbed")) and course(run) == course(rows.run("undisturbed"))


@pytest.mark.slow
def test_a_rewind_waits_for_the_checkpoint_on_its_way(rows: Artifacts, monkeypatch) -> None:
    slowed(monkeypatch, 0.3)

    def diverge() -> None:
        raise Diverged("the loss rose", 5, [0])

    heard = Heard(step_4=diverge)
    train(small(**BESIDE, train__on_divergence="rewind"), rows, heard)
    assert any("Going back to step-000004" in text for text in heard.warnings)


def test_a_full_disk_is_told_and_the_next_checkpoint_is_tried(rows: Artifacts, monkeypatch) -> None:
    plain, left = saving.read_back, [1]

    def full(*words, **keywords):
        if left and threading.current_thread().name == "checkpoint":
            left.pop()
            raise OSError(28, "No space left on device")
        return plain(*words, **keywords)

    monkeypatch.setattr(saving, "read_back", full)
    heard = Heard()
    result = train(small(**BESIDE), rows, heard)
    assert [text for text in heard.warnings if "NO CHECKPOINT at step 2: No space left" in text]
    assert rows.run(result.run).checkpoint_steps() == [4, 6, 8] and heard.states["saving"] == "works again"
    assert not list(rows.run(result.run).checkpoints.glob(".staging-*"))


def test_what_is_not_the_disks_fault_ends_the_run(rows: Artifacts, monkeypatch) -> None:
    plain = KeepingTrainer.begin_checkpoint

    def begin(self, folder, copy):
        plain(self, folder, copy)

        def fails() -> None:
            raise RuntimeError("a shape doesn't match")

        return fails

    monkeypatch.setattr(KeepingTrainer, "begin_checkpoint", begin)
    with pytest.raises(RuntimeError, match="a shape"):
        train(small(**BESIDE), rows)


def test_training_waits_and_says_so_where_the_memory_holds_no_copy(rows: Artifacts, monkeypatch) -> None:
    threads, heard = slowed(monkeypatch, 0), Heard()
    monkeypatch.setattr(background, "available_bytes", lambda: 3)
    train(small(**BESIDE), rows, heard)
    assert set(threads) == {"MainThread"}
    told = [text for text in heard.notes if "Training waits while a checkpoint is written" in text]
    assert len(told) == 1 and "no room for a copy of" in told[0]


def test_a_copy_takes_its_memory_once_and_keeps_what_is_shared_shared() -> None:
    copy, weight = HostCopy(torch.device("cpu")), torch.arange(6.0)
    state = {"model": {"embedding": weight, "head": weight}, "optimizer": {"step": torch.tensor(3.0), "lr": 0.1}}
    first = copy(state)
    place = first["model"]["head"].data_ptr()
    assert place == first["model"]["embedding"].data_ptr() != weight.data_ptr()
    weight += 1
    assert first["model"]["head"].tolist() == [0, 1, 2, 3, 4, 5]
    second = copy(state)
    assert second["model"]["head"].data_ptr() == place and second["model"]["head"].tolist() == [1, 2, 3, 4, 5, 6]
    assert second["optimizer"]["lr"] == 0.1


def test_work_that_is_stopped_ends_at_its_next_file() -> None:
    work, began = Background(), threading.Event()

    def writes() -> None:
        began.set()
        while True:
            work.check()

    work.start(writes)
    began.wait()
    work.stop()
    with pytest.raises(GivenUp):
        work.wait(5)
    assert work.ended


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks and looks into /proc")
def test_kills_while_a_checkpoint_is_written_leave_no_trace(rows: Artifacts, monkeypatch) -> None:
    settings = {**BESIDE, "train__max_steps": 24, "train__keep": 2, "train__eval_steps": 7}
    train(small(**settings), rows, run_name="never-killed")
    slowed(monkeypatch, 0.05)  # the children are forks, and have it too
    run, in_a_save = rows.run("often-killed"), 0
    with nursery() as children:
        for _ in range(5):
            children.start(rows, settings, **({"resume": run.name} if run.record.is_file() else {"run_name": run.name}))
            before = newest(run)
            while children.running() and not (newest(run) > before and any(run.checkpoints.glob(".staging-*"))):
                time.sleep(0.002)
            in_a_save += children.running()
            children.kill()
            children.wait()
        children.start(rows, settings, resume=run.name)
        assert children.wait() == 0
    assert in_a_save >= 4
    assert course(run) == course(rows.run("never-killed")) and weights_equal(run, rows.run("never-killed"))


def newest(run: RunFolder) -> int:
    return max(run.checkpoint_steps(), default=0) if Path(run.checkpoints).is_dir() else 0
