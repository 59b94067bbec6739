"""A run keeps what somebody else put into the folders that it replaces or removes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_cli.artifacts import MODEL_RECORD, Artifacts, RunFolder
from pretrain_cli.foreign import keep_aside, matching
from pretrain_cli.published import record_model, unchanged_files
from pretrain_cli.storage import publish_folder, write_sealed_json
from pretrain_cli.training.keeping.checkpoints import (
    clear_staging,
    fault,
    remove_after,
    rotate,
    staged,
    whole_steps,
)
from pretrain_cli.training.keeping.curves import draw_curves
from pretrain_cli.training.run import train
from pretrain_cli.webpage import document
from tests.support.runs import hashes, prepare_text, small

SENTENCES = "Call me Ishmael. Some years ago.\n\nNever mind how long precisely.\n\n" * 80


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def model_folder(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json", "README.md"):
        (folder / name).write_text(text)
    record_model(folder)
    return folder


def checkpoint(run: RunFolder, step: int) -> Path:
    folder = run.checkpoint(step)
    (folder / "sharded").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "ptk.json", "sharded/__0_0.distcp"):
        (folder / name).write_text(f"{step}")
    write_sealed_json(folder / "manifest.json", {"step": step, "files": hashes(folder)})
    assert not fault(folder)
    return folder


def test_a_new_model_replaces_the_recorded_files_and_keeps_others_and_edited_ones(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "old")
    (model / "README.md").write_text("my card")
    for name in ("extra.safetensors", "merges.txt", "tokenizer_train.py", "plots/a.png"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("mine")
    publish_folder(model_folder(tmp_path / "new", "new"), model, unchanged_files, MODEL_RECORD)
    found = contents(model)
    del found[MODEL_RECORD]
    assert found == {
        **dict.fromkeys(("model.safetensors", "tokenizer.json", "README.md"), "new"),
        **dict.fromkeys(("extra.safetensors", "merges.txt", "tokenizer_train.py", "plots/a.png"), "mine"),
        "README.md.old": "my card",
    }
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]


def test_a_model_without_a_record_is_replaced_by_exact_names(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", "old")
    (model / MODEL_RECORD).unlink()
    for name in ("extra.safetensors", "tokenizer_train.py"):
        (model / name).write_text("mine")
    publish_folder(model_folder(tmp_path / "new", "new"), model, unchanged_files, MODEL_RECORD)
    assert sorted(contents(model)) == sorted(
        [MODEL_RECORD, "README.md", "extra.safetensors", "model.safetensors", "tokenizer.json", "tokenizer_train.py"]
    )


def test_a_kill_while_the_old_model_is_removed_loses_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Artifacts(tmp_path).run("a")
    for killed_after in range(4):
        shutil.rmtree(tmp_path, ignore_errors=True)
        model = model_folder(run.model, "old")
        (model / "mine.txt").write_text("mine")
        left, unlink = [killed_after], Path.unlink

        class Killed(BaseException):
            pass

        def kill(path: Path, missing_ok: bool = False, left: list[int] = left, unlink=unlink) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            unlink(path, missing_ok)

        new = model_folder(run.path / "new", "new")
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", kill)
            with pytest.raises(Killed):
                publish_folder(new, model, unchanged_files, MODEL_RECORD)
        clear_staging(run)
        found = contents(run.path)
        assert sorted(found) == sorted(
            f"model/{name}" for name in (MODEL_RECORD, "README.md", "mine.txt", "model.safetensors", "tokenizer.json")
        )
        assert found["model/README.md"] == "new" and found["model/mine.txt"] == "mine"


def test_a_removed_checkpoint_leaves_what_others_put_there_and_is_a_checkpoint_no_more(tmp_path: Path) -> None:
    run = Artifacts(tmp_path).run("a")
    for step in (1, 2, 3, 4):
        checkpoint(run, step)
    notes = run.checkpoint(2) / "notes.txt"
    notes.write_text("mine")
    (run.checkpoint(4) / "sharded" / "notes.txt").write_text("mine")
    warnings: list[str] = []
    rotate(run, 2, 0, warnings.append)
    assert contents(run.checkpoint(2)) == {"notes.txt": "mine"} and not run.checkpoint(1).exists()
    assert run.checkpoint_steps() == whole_steps(run) == [3, 4] and not warnings
    remove_after(run, 3)
    assert contents(run.checkpoint(4)) == {"sharded/notes.txt": "mine"}
    clear_staging(run)
    rotate(run, 1, 0, warnings.append)
    assert notes.read_text() == "mine" and run.checkpoint_steps()[0] == 3


def test_a_checkpoint_that_is_saved_again_keeps_what_others_put_there(tmp_path: Path) -> None:
    run = Artifacts(tmp_path).run("a")
    (checkpoint(run, 2) / "notes.txt").write_text("mine")
    with staged(run, 2) as folder:
        (folder / "ptk.json").write_text("{}")
    assert not fault(run.checkpoint(2))
    assert sorted(contents(run.checkpoint(2))) == ["manifest.json", "notes.txt", "ptk.json"]


def test_only_files_right_in_the_folder_match(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "b.txt").write_text("")
    assert matching(("*.txt",))(tmp_path) == {"b.txt"}


@pytest.mark.slow
def test_a_page_record_or_picture_of_somebody_else_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    run = Artifacts(tmp_path).run("a")
    run.path.mkdir(parents=True)
    run.metrics.write_text('{"step": 1, "loss": 2.0}\n')
    run.curves.write_bytes(b"a drawing of mine")
    assert draw_curves(run) == f"{run.curves} wasn't as ptk wrote it: it is kept as curves.png.old."
    assert draw_curves(run) == ""  # its own is replaced
    assert (run.path / "curves.png.old").read_bytes() == b"a drawing of mine"

    record, page = tmp_path / "report.json", tmp_path / "report.html"
    for file in (record, page):
        file.write_text("mine")
        file.with_name(f"{file.name}.old").write_text("older")
        assert keep_aside(file).endswith(f"it is kept as {file.name}.old.old.")
        assert keep_aside(file) == "" and not file.exists()
    write_sealed_json(record, {"version": 1})
    page.write_text(document("A title", ["<p>text</p>"]))
    assert keep_aside(record) == keep_aside(page) == ""
    page.write_text(page.read_text().replace("text", "my notes"))
    assert keep_aside(page).endswith("it is kept as report.html.old.old.old.")
    page.symlink_to(record)
    assert keep_aside(page) and record.exists()


def test_a_resume_deletes_nothing_that_is_not_the_runs(tmp_path: Path) -> None:
    artifacts = prepare_text(tmp_path, SENTENCES)
    settings = {"train__save_steps": 1, "train__keep": 3}
    train(small(train__max_steps=2, **settings), artifacts, run_name="a")
    run = artifacts.run("a")
    for name in ("extra.safetensors", "README.md"):
        (run.model / name).write_text("mine")
    notes = run.checkpoint(run.checkpoint_steps()[0]) / "notes.txt"
    notes.write_text("mine")
    train(small(train__max_steps=4, train__keep=1), artifacts, resume="a")
    assert (run.model / "extra.safetensors").read_text() == "mine" and notes.read_text() == "mine"
    assert (run.model / "README.md.old").read_text() == "mine" and "library_name" in (
        run.model / "README.md"
    ).read_text()
    assert len(run.checkpoint_steps()) <= 2
