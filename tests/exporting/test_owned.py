"""An export replaces what ptk exported before, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import UsageError
from pretrain_cli.exporting import owned
from pretrain_cli.exporting.blend import blend
from pretrain_cli.exporting.owned import check_ours, move_in
from pretrain_cli.exporting.run import export
from pretrain_cli.storage import move_file
from tests.support.preparing import everything
from tests.support.tiny import make_model


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(make_model(tmp_path / "tiny"))


def test_a_second_export_replaces_the_first(tmp_path: Path, model: str) -> None:
    artifacts, out = Artifacts(tmp_path / "artifacts"), tmp_path / "out"
    first = export(artifacts, run=model, output=out)
    assert export(artifacts, run=model, output=out).files == first.files
    assert not [file for file in first.files if file.name.startswith(".")]


def test_a_model_is_not_replaced_by_what_is_made_of_it(tmp_path: Path, model: str) -> None:
    """What ptk exported may be the only copy: its run may be gone."""
    artifacts, out, packed = Artifacts(tmp_path / "artifacts"), tmp_path / "out", tmp_path / "packed"
    export(artifacts, run=model, output=out)
    (file,) = export(artifacts, run=model, to="gguf", output=packed).files[:1]
    before = everything(tmp_path)
    for again in (
        lambda: export(artifacts, run=str(out), output=out),
        lambda: blend(artifacts, first=str(out), second=model, output=out),
        lambda: blend(artifacts, first=model, second=str(out), output=out),
        lambda: export(artifacts, run=str(file), output=packed),
    ):
        with pytest.raises(UsageError, match="is the model that the export is made from"):
            again()
    assert everything(tmp_path) == before
    assert export(artifacts, run=str(out), to="gguf", output=out).files


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path, model: str, to: str) -> None:
    out = tmp_path / "mine"
    (out / ".git").mkdir(parents=True)
    for name in (".git/HEAD", "config.json", "train.py", "README.md", "Modelfile"):
        (out / name).write_text(f"my {name}")
    before = everything(out)
    with pytest.raises(UsageError, match="no record says that ptk wrote it") as caught:
        export(Artifacts(tmp_path / "artifacts"), run=model, output=out, to=to)
    assert everything(out) == before and "--output DIR" in caught.value.hint


def test_notes_in_an_earlier_export_and_changes_to_its_card_are_kept(tmp_path: Path, model: str) -> None:
    artifacts, out = Artifacts(tmp_path / "artifacts"), tmp_path / "out"
    export(artifacts, run=model, output=out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt, and no record says"):
        export(artifacts, run=model, output=out)
    (out / "notes.txt").unlink()
    (out / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json was changed since ptk exported it"):
        export(artifacts, run=model, output=out)
    assert (out / "tokenizer_config.json").read_text() == "{}"


@pytest.mark.parametrize("inside", ["runs/a/model", "runs", "data/train", "tokenizer", "bases/x", ""])
def test_no_export_is_written_over_what_the_other_commands_keep(tmp_path: Path, model: str, inside: str) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    make_model(artifacts.run("a").model)
    before = everything(artifacts.root)
    with pytest.raises(UsageError, match="artifact folder"):
        export(artifacts, run=model, output=artifacts.root / inside)
    assert everything(artifacts.root) == before


def test_two_quantizations_share_a_folder(tmp_path: Path, model: str) -> None:
    pytest.importorskip("gguf")
    artifacts, out = Artifacts(tmp_path / "artifacts"), tmp_path / "out"
    for quantization in ("f16", "q8_0", "f16"):
        export(artifacts, run=model, output=out, to="gguf", quantization=quantization)
    assert sorted(file.name for file in out.glob("*.gguf")) == ["tiny-f16.gguf", "tiny-q8_0.gguf"]


@pytest.mark.parametrize("moved", [0, 1])
def test_an_export_that_is_killed_between_its_files_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Its record lists new files beside old ones: both are ptk's, and a file that somebody changed still isn't."""

    class Killed(BaseException):
        pass

    def staged(text: str) -> Path:
        staging = tmp_path / text
        staging.mkdir()
        for name in names:
            (staging / name).write_text(text)
        return staging

    def kill(source: Path, target: Path) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        move_file(source, target)

    folder, left, names = tmp_path / "out", [moved], ("Modelfile", "a.gguf")
    move_in(staged("first"), folder)
    with monkeypatch.context() as patched:
        patched.setattr(owned, "move_file", kill)
        with pytest.raises(Killed):
            move_in(staged("second"), folder)
    check_ours(folder, names)
    assert move_in(staged("third"), folder) == [folder / name for name in names]
    assert {(folder / name).read_text() for name in names} == {"third"}
    (folder / "Modelfile").write_text("mine")
    with pytest.raises(UsageError, match="Modelfile was changed"):
        move_in(staged("fourth"), folder)
    assert (folder / "Modelfile").read_text() == "mine"


def test_folders_beside_an_export_that_only_sound_like_temporary_ones_are_kept(tmp_path: Path, model: str) -> None:
    theirs = [tmp_path / name for name in (".old-out", ".export-notes", ".out.ptk.txt")]
    for folder in theirs:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        os.utime(folder / "mine.txt", (0, 0))
        os.utime(folder, (0, 0))
    for to in ("hf", "gguf", "hf"):
        export(Artifacts(tmp_path / "artifacts"), to=to, run=model, output=tmp_path / ("out" if to == "hf" else "g"))
    assert [(folder / "mine.txt").read_text() for folder in theirs] == ["mine"] * 3


@pytest.mark.parametrize("kind", ["file", "link to a file", "link to a folder", "broken link", "pipe"])
@pytest.mark.parametrize("to", ["hf", "gguf", "blend"])
def test_a_name_that_is_not_a_folders_is_left_as_it_is(tmp_path: Path, model: str, to: str, kind: str) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    if kind == "file":
        out.write_text("thesis")
    elif kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no pipes with names")
        os.mkfifo(out)
    else:
        if kind == "link to a file":
            mine.write_text("thesis")
        elif kind == "link to a folder":
            mine.mkdir()
        out.symlink_to(mine)
    before = out.lstat()
    artifacts = Artifacts(tmp_path / "artifacts")
    with pytest.raises(UsageError, match="not a folder: it would be lost") as caught:
        if to == "blend":
            blend(artifacts, first=model, second=model, output=out)
        else:
            export(artifacts, run=model, output=out, to=to)
    after = out.lstat()
    assert (after.st_mode, after.st_ino, after.st_mtime_ns) == (before.st_mode, before.st_ino, before.st_mtime_ns)
    assert "--output DIR" in caught.value.hint and (kind != "link to a file" or mine.read_text() == "thesis")


def test_the_file_that_names_the_latest_run_and_a_file_on_the_way_are_left_as_they_are(
    tmp_path: Path, model: str
) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    artifacts.root.mkdir()
    artifacts.latest.write_text("a\n")
    for out in (artifacts.latest, artifacts.latest / "inside"):
        with pytest.raises(UsageError):
            export(artifacts, run=model, output=out)
    assert artifacts.latest.read_text() == "a\n"


def test_what_appears_in_the_folder_while_the_model_is_opened_is_kept(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("pretrain_cli.exporting.run.open_with_transformers", lambda _: out.write_text("thesis"))
    with pytest.raises(UsageError, match="is a file, not a folder"):
        export(Artifacts(tmp_path / "artifacts"), run=model, output=out)
    assert out.read_text() == "thesis"
