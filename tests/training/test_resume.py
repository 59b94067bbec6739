"""A stopped run resumes exactly, from the newest checkpoint that is whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.errors import ConfigError, DataError, Interrupted, ModelError, UsageError
from pretrain_cli.refusals import writing_to
from pretrain_cli.storage import read_lines, write_sealed_json
from pretrain_cli.training.keeping import checkpoints
from pretrain_cli.training.processes.signals import SAME_SECONDS, StopRequests
from pretrain_cli.training.run import train
from tests.support.runs import Heard, PowerCut, course, cut, prepare_text, record_of, small, weights_equal

pytestmark = pytest.mark.slow

STEPS = {"train__max_steps": 10, "train__save_steps": 2, "train__eval_steps": 3}


@pytest.fixture(scope="module")
def straight(rows: Artifacts) -> RunFolder:
    train(small(**STEPS, train__optimizer="adamw"), rows, run_name="straight")
    return rows.run("straight")


@pytest.fixture
def broken_off(rows: Artifacts, straight: RunFolder) -> RunFolder:
    """A run that ended after step 7, with checkpoints at 4 and 6."""
    run = rows.run("broken-off")
    shutil.rmtree(run.path, ignore_errors=True)
    with pytest.raises(PowerCut):
        train(small(**STEPS, train__optimizer="adamw"), rows, Heard(step_7=cut), run_name=run.name)
    assert run.checkpoint_steps() == [3, 4, 6] or run.checkpoint_steps() == [4, 6]
    return run


def test_resume_gives_the_weights_and_metrics_of_the_undisturbed_run(rows, straight, broken_off) -> None:
    assert [line["step"] for line in course(broken_off)] == list(range(1, 8))
    earlier, most = record_of(broken_off), 1 << 45
    assert earlier.peak_memory_bytes > 0  # of the start that was cut off
    write_sealed_json(broken_off.record, earlier.model_dump(mode="json") | {"peak_memory_bytes": most})
    heard = Heard()
    result = train(small(), rows, heard, resume="")
    assert result.run == broken_off.name and result.steps == 10
    assert result.peak_memory_bytes == record_of(broken_off).peak_memory_bytes == most
    assert "resuming from step-000006" in heard.notes
    assert course(broken_off) == course(straight)
    assert weights_equal(broken_off, straight)


def test_a_chosen_checkpoint_is_taken(rows, straight, broken_off) -> None:
    heard = Heard()
    train(small(), rows, heard, resume=f"{broken_off.name}@step-000004")
    assert "resuming from step-000004" in heard.notes
    assert course(broken_off) == course(straight) and weights_equal(broken_off, straight)
    with pytest.raises(ModelError, match="step-000003"):
        train(small(train__max_steps=12), rows, resume=f"{broken_off.name}@step-000003")


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def flip(folder: Path) -> None:
    file = folder / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def empty(folder: Path) -> None:
    (folder / "scheduler.pt").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "model.safetensors has"),
        (flip, "optimizer.pt was changed"),
        (empty, "scheduler.pt has 0 bytes"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_left_aside_and_said(rows, straight, broken_off, damage, words) -> None:
    damage(broken_off.checkpoint(6))
    heard = Heard()
    train(small(), rows, heard, resume=broken_off.name)
    assert any("step-000006 is skipped" in text and words in text for text in heard.warnings), heard.warnings
    assert "resuming from step-000004" in heard.notes
    assert weights_equal(broken_off, straight)


def test_without_any_whole_checkpoint_a_resume_says_so(rows, broken_off) -> None:
    for step in broken_off.checkpoint_steps():
        (broken_off.checkpoint(step) / "optimizer.pt").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="No checkpoint"):
        train(small(), rows, resume=broken_off.name)


def test_a_finished_run_returns_at_once_and_goes_on_when_given_more(rows, straight) -> None:
    before = straight.metrics.read_bytes(), straight.model.stat().st_mtime_ns
    started = time.monotonic()
    result = train(small(), rows, resume="straight")
    assert time.monotonic() - started < 1 and result.steps == 10
    for resume in ("straight", f"straight@{straight.checkpoint(10).name}"):
        assert train(small(), rows, resume=resume).steps == 10
    with pytest.raises(ModelError, match="no checkpoint 'step-000099'"):
        train(small(), rows, resume="straight@step-000099")
    assert (straight.metrics.read_bytes(), straight.model.stat().st_mtime_ns) == before
    shutil.rmtree(rows.runs / "longer", ignore_errors=True)
    shutil.copytree(straight.path, rows.runs / "longer")
    assert train(small(train__max_steps=12), rows, resume="longer").steps == 12


def test_what_would_change_the_training_is_refused_by_name(rows, broken_off) -> None:
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        train(small(train__learning_rate=0.5), rows, resume=broken_off.name)
    with pytest.raises(UsageError, match="--resume"):
        train(small(), rows, resume=broken_off.name, run_name="other")
    with pytest.raises(ModelError, match="no-such-run"):
        train(small(), rows, resume="no-such-run")


def test_other_data_than_the_run_began_with_is_refused(tmp_path, prose) -> None:
    artifacts = prepare_text(tmp_path, prose[:9_000])
    with pytest.raises(PowerCut):
        train(small(train__max_steps=6, train__save_steps=2), artifacts, Heard(step_3=cut), run_name="moved")
    tokenizer = artifacts.tokenizer / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    prepare_text(tmp_path, prose[9_000:19_000], tokenizer__path=str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="data fingerprint"):
        train(small(), artifacts, resume="moved")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_signal_saves_and_says_how_to_go_on(rows, straight, number, code) -> None:
    name = f"stopped-{code}"
    heard = Heard(step_5=lambda: os.kill(os.getpid(), number))
    before = signal.signal(number, signal.default_int_handler)  # whoever started the tests may ignore it, as nohup does
    try:
        with pytest.raises(Interrupted) as caught:
            train(small(**STEPS, train__optimizer="adamw"), rows, heard, run_name=name)
    finally:
        signal.signal(number, before)
    assert caught.value.exit_code == code
    assert f"ptk train --resume {name}" in caught.value.hint
    step = record_of(rows.run(name)).steps
    assert rows.run(name).checkpoint_steps()[-1] == step and record_of(rows.run(name)).status == "interrupted"
    train(small(), rows, resume=name)
    assert course(rows.run(name)) == course(straight) and weights_equal(rows.run(name), straight)


def test_a_warning_signal_saves_and_training_continues(rows, straight) -> None:
    saved: list[int] = []
    heard = Heard(
        step_5=lambda: os.kill(os.getpid(), signal.SIGUSR1),
        step_8=lambda: saved.extend(rows.run("warned").checkpoint_steps()),
    )
    settings = {**STEPS, "train__save_steps": 0, "train__keep": 9, "train__on_sigusr1": "continue"}
    train(small(**settings, train__optimizer="adamw"), rows, heard, run_name="warned")
    assert saved == [6]
    assert record_of(rows.run("warned")).status == "finished"
    assert weights_equal(rows.run("warned"), straight)


def test_a_second_signal_stops_at_once_even_where_failures_are_caught(rows) -> None:
    stop = StopRequests(lambda text: None, rows.run("never-begun"))
    with pytest.raises(Interrupted, match="at once") as caught, stop:
        stop.in_loop = True
        for _ in range(3):  # a launcher that passes on what the terminal has sent already
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.heard
        time.sleep(1.1 * SAME_SECONDS)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("what guards a tracker took the signal for the tracker's failure")
    assert caught.value.exit_code == 143 and "Training had not begun" in caught.value.hint


def test_two_processes_cannot_train_one_run(rows) -> None:
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from pretrain_cli.locking import lock\n"
            "with lock(Path(sys.argv[1]), 'training'): print('held', flush=True); time.sleep(60)",
            str(rows.run("held").path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as held:
        try:
            assert held.stdout is not None and held.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match="already training"):
                train(small(train__max_steps=1), rows, run_name="held")
        finally:
            held.kill()


@pytest.mark.parametrize("how", ["finished", "killed"])
def test_a_run_whose_checkpoints_are_gone_is_not_started_again(rows, tmp_path, how: str) -> None:
    name = f"lost-{how}"
    config = small(train__max_steps=6, train__save_steps=2)
    if how == "killed":
        with pytest.raises(PowerCut):
            train(config, rows, Heard(step_5=cut), run_name=name)
    else:
        train(config, rows, run_name=name)
    run = rows.run(name)
    shutil.rmtree(run.checkpoints)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(ModelError, match=r"has trained \d steps, but .* holds no checkpoint") as caught:
        train(small(train__max_steps=8), rows, resume=name)
    assert "Restore or mount" in caught.value.hint
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("logged", [2, 5])
def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(rows, logged: int) -> None:
    """Written in the background, it may not be there when later steps are."""
    with pytest.raises(PowerCut):
        train(small(train__max_steps=6, train__save_steps=4), rows, Heard(step_2=cut), run_name=f"too-early-{logged}")
    metrics = rows.run(f"too-early-{logged}").metrics
    metrics.write_text("".join(json.dumps({"step": step, "loss": 5.0}) + "\n" for step in range(1, logged + 1)))
    heard = Heard()
    assert train(small(), rows, heard, resume=f"too-early-{logged}").steps == 6
    assert "There is no checkpoint yet: the run starts from the beginning." in heard.notes


@pytest.mark.parametrize("write", ["run_record.write_sealed_json", "training.keeping.beginning.write_run_config"])
def test_a_larger_budget_survives_a_kill_at_the_start_of_its_resume(rows, straight, monkeypatch, write: str) -> None:
    """Whichever of the two files was written last: repeated, the resume trains on."""
    run = rows.run("budget")
    shutil.rmtree(run.path, ignore_errors=True)
    shutil.copytree(straight.path, run.path)
    with monkeypatch.context() as patched:
        patched.setattr(f"pretrain_cli.{write}", lambda *_: cut())
        with pytest.raises(PowerCut):
            train(small(train__max_steps=12), rows, resume=run.name)
    assert train(small(train__max_steps=12), rows, resume=run.name).steps == 12


def test_a_resume_removes_what_a_kill_kept_from_being_removed(rows, straight, broken_off) -> None:
    """A checkpoint too many, half a checkpoint, and half a model."""
    shutil.copytree(straight.checkpoint(10), broken_off.checkpoint(10))
    for name in ("checkpoints/.old-step-000001", "checkpoints/.staging-000010-ab12_xyz", ".ptk-model-abcdefgh/model"):
        (broken_off.path / name).mkdir(parents=True)
    train(small(train__keep=1), rows, resume=broken_off.name)
    assert weights_equal(broken_off, straight)
    left = {entry.name for entry in broken_off.checkpoints.iterdir()}
    assert left - {f"step-{record_of(straight).steps:06d}"} <= {"step-000009", "step-000006", "step-000003"}, left
    assert not list(broken_off.path.glob(".ptk-model-*"))
    old = broken_off.path / ".ptk-old-model"
    old.mkdir()
    for name in ("config.json", "notes.txt"):
        (old / name).write_text("old")
    train(small(), rows, resume=broken_off.name)
    assert not old.exists() and (broken_off.model / "notes.txt").read_text() == "old"


def test_a_full_disk_in_the_last_file_of_a_checkpoint_does_not_end_the_run(rows, straight, monkeypatch) -> None:
    write = checkpoints.write_sealed_json

    def full(path: Path, values: dict[str, object]) -> None:
        if path.parent.name.startswith(".staging-000004"):
            with writing_to(path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, values)

    monkeypatch.setattr(checkpoints, "write_sealed_json", full)
    heard, run = Heard(), rows.run("one-refused")
    assert train(small(**STEPS, train__optimizer="adamw"), rows, heard, run_name=run.name).status == "finished"
    assert any("NO CHECKPOINT at step 4: No space left" in text for text in heard.warnings)
    assert weights_equal(run, straight)


@pytest.mark.slow
def test_a_resumed_run_with_minutes_continues_its_schedule(rows: Artifacts) -> None:
    config = small(train__max_minutes=0.4, train__save_steps=1, train__warmup_steps=0)
    with pytest.raises(PowerCut):
        train(config, rows, Heard(step_16=cut), run_name="timed")  # seconds of 24
    before = read_lines(rows.run("timed").metrics)
    saved = rows.run("timed").checkpoint_steps()[-1]
    train(small(), rows, resume="timed", began=time.monotonic() - 20)  # its start took nearly the whole budget
    after = [line for line in read_lines(rows.run("timed").metrics) if line["step"] > saved]
    assert max(line["learning_rate"] for line in after) <= 1.01 * before[-1]["learning_rate"]
    assert after[0]["learning_rate"] >= 0.7 * before[-1]["learning_rate"]
    plan = record_of(rows.run("timed")).plan
    assert plan is not None and plan.expected_steps > saved
