"""The artifact folder: names, writes that are complete or absent, and one process at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.console import Console
from pretrain_cli.cli.failures import explain
from pretrain_cli.errors import DataError, ModelError, UsageError
from pretrain_cli.foreign import matching
from pretrain_cli.locking import lock
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.names import find_model
from pretrain_cli.refusals import DiskError, NoSpaceError, writing_to
from pretrain_cli.storage import publish_folder, read_json, read_lines, replacing, temporary_folder, write_json


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"step": 1})

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"step": 2})
    assert read_json(path) == {"step": 1}
    assert names(tmp_path) == ["record.json"]


def test_a_folder_is_published_whole_and_replaces_the_old_one(tmp_path) -> None:
    final, staging = tmp_path / "step-000100", tmp_path / ".staging"
    for folder, text in ((final, "old"), (staging, "new")):
        folder.mkdir()
        (folder / text).write_text(text)
    publish_folder(staging, final)
    assert names(tmp_path) == ["step-000100"]
    assert names(final) == ["new"]


def test_a_checkpoint_that_a_training_removes_while_they_are_listed_is_none(tmp_path, monkeypatch) -> None:
    run = Artifacts(tmp_path).run("a")
    for step in (1, 2):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "model.safetensors").write_text("x")
    listed = Path.iterdir

    def removing(folder: Path) -> Iterator[Path]:
        if folder == run.checkpoint(1):
            shutil.rmtree(folder)
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", removing)
    assert run.checkpoint_steps() == [2]


def test_checkpoints_are_listed_by_step_and_staging_folders_are_not(artifacts) -> None:
    run = artifacts.run("first")
    for name in ("step-000100", "step-000020", ".step-000200", "step-1", "step-1000000"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.checkpoint_steps() == [20, 100, 1_000_000]
    assert run.checkpoint(20).name == "step-000020"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "-flag", "a b", "NUL", "com1.x", "dot."])
def test_a_run_name_that_no_folder_should_have_is_refused(artifacts, name) -> None:
    with pytest.raises(UsageError, match="is not a valid run name"):
        artifacts.run(name)


def test_what_is_missing_says_which_command_makes_it(artifacts) -> None:
    with pytest.raises(DataError) as no_data:
        read_manifest(artifacts)
    with pytest.raises(ModelError) as no_run:
        artifacts.latest_run()
    assert "ptk prepare" in no_data.value.hint
    assert "ptk train" in no_run.value.hint


def test_a_folder_that_no_run_can_be_named_as_is_no_run(artifacts) -> None:
    for name in ("a", "a (copy)", "b."):
        write_json(artifacts.runs / name / "run.json", {})
    assert artifacts.run_names() == ["a"]


def test_an_address_is_not_cut_at_its_user(artifacts) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("http://me:hunter2@host/x", artifacts)
    assert "hunter2" not in caught.value.message


def test_an_unknown_run_names_those_that_exist(artifacts) -> None:
    write_json(artifacts.run("first").record, {})
    with pytest.raises(ModelError) as caught:
        artifacts.existing_run("frist")
    assert "first" in caught.value.hint


def test_a_damaged_record_is_an_error_with_its_path(tmp_path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="isn't a JSON object"):
        read_json(path)


def test_a_full_disk_is_said_as_such(tmp_path) -> None:
    with pytest.raises(NoSpaceError, match="No space left"), writing_to(tmp_path / "new"):
        raise OSError(28, "No space left on device")


def test_a_file_in_the_way_of_the_folder_is_the_users_mistake(tmp_path) -> None:
    (tmp_path / "artifacts").write_text("")
    with pytest.raises(UsageError, match="is a file, but a folder is needed"):
        write_json(tmp_path / "artifacts" / "data" / "manifest.json", {})


def test_the_second_process_in_a_folder_hears_who_holds_it(tmp_path) -> None:
    with lock(tmp_path, "training"):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()
        program = (
            "import sys; from pathlib import Path; from pretrain_cli.locking import lock\n"
            "try:\n    with lock(Path(sys.argv[1]), 'training'): pass\n"
            "except Exception as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert f"Another process (pid {os.getpid()}) is already training" in done.stdout
    with lock(tmp_path, "training"):
        pass


def test_what_ptk_did_not_write_survives_when_a_folder_is_replaced(tmp_path: Path) -> None:
    final, old = tmp_path / "model", tmp_path / ".ptk-old-model"
    for folder, names in ((final, ("config.json", "notes.txt")), (old, ("config.json", "earlier.txt"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"old {name}")
    (final / "scripts").mkdir()
    (final / "scripts" / "run.sh").write_text("mine")
    staging = tmp_path / "staging"
    staging.mkdir()
    (staging / "config.json").write_text("new")
    publish_folder(staging, final, matching(("config.json",)))
    assert {path.name for path in final.iterdir()} == {"config.json", "notes.txt", "earlier.txt", "scripts"}
    assert (final / "config.json").read_text() == "new" and (final / "scripts" / "run.sh").read_text() == "mine"
    assert not old.exists() and not staging.exists()


def test_two_files_of_one_name_that_ptk_did_not_write_both_survive(tmp_path: Path) -> None:
    """A kill left one in the old folder, and the user has put another into the new one."""
    final, old, staging = tmp_path / "model", tmp_path / ".ptk-old-model", tmp_path / "staging"
    for folder, text in ((final, "new"), (old, "old")):
        folder.mkdir()
        (folder / "notes.txt").write_text(text)
    staging.mkdir()
    (staging / "config.json").write_text("{}")
    publish_folder(staging, final, matching(("config.json",)))
    assert {path.name: path.read_text() for path in final.iterdir()} == {
        "config.json": "{}",
        "notes.txt": "new",
        "notes.txt.old": "old",
    }
    assert not old.exists()


@pytest.mark.parametrize("quoted", [Exception("Input/output error (os error 5)"), OSError(5, "Input/output error")])
def test_a_disk_that_fails_is_said_as_such_whoever_reports_it(tmp_path: Path, quoted: Exception) -> None:
    """tokenizers and safetensors quote the system in errors of their own, without its number."""
    with pytest.raises(DiskError, match=f"disk of {tmp_path} reports an error: Input"), writing_to(tmp_path):
        raise quoted
    with pytest.raises(NoSpaceError), writing_to(tmp_path):
        raise Exception("No space left on device (os error 28)")


def test_what_killed_processes_left_is_removed_once_nobody_can_be_writing_it(tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    kept = [".run.json.ptk-fresh", ".run.json.swp", ".run.jsonl.ptk-another"]
    for name in (".run.json.ptk-abandoned", *kept):
        (tmp_path / name).write_text("half")
        if "fresh" not in name:
            os.utime(tmp_path / name, (0, 0))
    write_json(record, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [*kept, "run.json"]


def test_a_temporary_folder_replaces_those_that_killed_processes_left(tmp_path: Path) -> None:
    kept = {".ptk-export-filling", ".export-mine"}
    for name in (".ptk-export-abandoned", *kept):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "model.safetensors").write_bytes(b"half")
    for path in [*tmp_path.rglob("*")]:
        if "filling" not in str(path) or path.is_dir():
            os.utime(path, (0, 0))
    with temporary_folder(tmp_path, "export") as folder:
        (folder / "config.json").write_text("{}")
        assert {entry.name for entry in tmp_path.iterdir()} == {folder.name, *kept}
    assert {entry.name for entry in tmp_path.iterdir()} == kept


def test_a_file_that_fails_half_written_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"old")
    with pytest.raises(NoSpaceError), replacing(file) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model.gguf", b"old")]


def test_lines_that_are_damaged_are_left_out_and_the_others_are_read(tmp_path: Path) -> None:
    """Half-written by a killed process, a bad byte, nested too deeply; and a text holds any line end of Unicode."""
    good = b'{"step": 1, "text": "one\xe2\x80\xa8line"}\n'
    deep = b'{"step": 2, "text": ' + b"[" * 100_000 + b"\n"
    (tmp_path / "samples.jsonl").write_bytes(good + b'{"step": 2, "\xff"}\n' + deep + b"3\n" + good + b'{"step": 4')
    assert [line["text"] for line in read_lines(tmp_path / "samples.jsonl")] == ["one\u2028line"] * 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_outside_the_artifact_folder_is_no_bug_either(capsys, tmp_path: Path, number: int) -> None:
    """As while a file is copied: the system names its source first."""
    copied = OSError(number, os.strerror(number), "/models/config.json", None, str(tmp_path / "config.json"))
    for error, named in (
        (copied, str(tmp_path)),
        (OSError(number, os.strerror(number)), "disk that this command writes to"),
    ):
        assert explain(Console(), error, ["export"]) == 3
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("Error: ") and named in first and "/models" not in first
        assert second.startswith("Hint: ")


def test_lines_are_read_back_whatever_separators_their_texts_hold(tmp_path: Path) -> None:
    lines = [{"step": step, "text": f"a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh {step}"} for step in range(5)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "samples.jsonl").write_text(text, encoding="utf-8", newline="")
    assert read_lines(tmp_path / "samples.jsonl") == lines
