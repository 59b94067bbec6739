"""A prepare that fails while it publishes leaves the last output as it was, and the next one finishes it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.inspect import inspect_row
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.staging import Staging
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.locking import lock
from pretrain_cli.manifest import damages, read_manifest
from pretrain_cli.refusals import NoSpaceError
from pretrain_cli.storage import file_hash
from tests.support.preparing import everything, small_config

MOST_RENAMES = 14


@pytest.mark.parametrize("point", range(MOST_RENAMES))
def test_a_full_disk_at_any_rename_of_a_publish_leaves_the_old_rows_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    folders = (artifacts.train_rows, artifacts.validation_rows, artifacts.tokenizer)
    before = [everything(folder) for folder in folders]
    fingerprint = read_manifest(artifacts).fingerprint
    replace, publish = os.replace, Staging.finish
    renames: list[Any] = []

    def full(source: Any, target: Any, **keywords: Any) -> None:
        renames.append(target)
        if len(renames) == point + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target, **keywords)

    def finish(self: Staging) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            publish(self)

    monkeypatch.setattr(Staging, "finish", finish)
    try:
        prepare(small_config(text, 64), artifacts)
    except NoSpaceError:
        assert [everything(folder) for folder in folders] == before
        assert read_manifest(artifacts).fingerprint == fingerprint
        assert inspect_row(artifacts, 0) is not None
    else:
        assert point >= len(renames)
    monkeypatch.undo()
    result = prepare(small_config(text, 64), artifacts)
    undisturbed = Artifacts(tmp_path / "undisturbed")
    prepare(small_config(text, 64), undisturbed)
    assert result.reused and read_manifest(artifacts).fingerprint == read_manifest(undisturbed).fingerprint
    assert everything(artifacts.train_rows) == everything(undisturbed.train_rows)
    left = [entry.name for entry in artifacts.data.iterdir() if entry.is_dir()]
    assert sorted(left) == ["train", "validation"]


def test_the_sweep_reaches_every_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael.\n" * 200)
    prepare(small_config(text, 32), artifacts)
    replace, publish = os.replace, Staging.finish
    renames: list[Any] = []

    def counted(source: Any, target: Any, **keywords: Any) -> None:
        renames.append(target)
        replace(source, target, **keywords)

    def finish(self: Staging) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", counted)
            publish(self)

    monkeypatch.setattr(Staging, "finish", finish)
    prepare(small_config(text, 64), artifacts)
    assert 5 <= len(renames) < MOST_RENAMES


@pytest.mark.parametrize("damage", ["missing", "cut", "no state", "no validation", "empty tokenizer"])
def test_rows_that_are_missing_or_cut_are_made_again(tmp_path: Path, damage: str) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    before = everything(artifacts.train_rows), everything(artifacts.validation_rows)
    arrow = next(artifacts.train_rows.glob("*.arrow"))
    if damage == "missing":
        arrow.unlink()
    elif damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    elif damage == "no state":
        (artifacts.train_rows / "state.json").unlink()
    elif damage == "no validation":
        shutil.rmtree(artifacts.validation_rows)
    else:
        (artifacts.tokenizer / "tokenizer.json").write_text("")
    assert not prepare(small_config(text, 32), artifacts).reused
    assert (everything(artifacts.train_rows), everything(artifacts.validation_rows)) == before
    assert prepare(small_config(text, 32), artifacts).reused


@pytest.mark.parametrize("place", ["data/train", "data/validation", "tokenizer"])
def test_one_changed_byte_is_noticed_by_prepare_and_a_changed_size_by_all(tmp_path: Path, place: str) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    manifest = read_manifest(artifacts)
    assert set(everything(artifacts.root)) | {"data/rejected.jsonl"} >= set(manifest.files)
    assert any(name.startswith(place) for name in manifest.files)
    for name, record in manifest.files.items():
        assert (record.size, record.hash) == ((artifacts.root / name).stat().st_size, file_hash(artifacts.root / name))
    assert damages(artifacts, manifest, read=True) == []
    file = artifacts.root / next(name for name in manifest.files if name.startswith(place))
    original = file.read_bytes()
    file.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert damages(artifacts, manifest, read=False) == []
    assert damages(artifacts, manifest, read=True) == [f"{file} has other bytes than were written"]
    assert not prepare(small_config(text, 32), artifacts).reused
    assert file.read_bytes() == original
    file.write_bytes(original + b"x")
    with pytest.raises(DataError, match=r"is damaged: .* bytes instead of"):
        inspect_row(artifacts, 0)


def test_a_kill_after_the_last_move_leaves_nothing_and_loses_no_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    (artifacts.train_rows / "notes.txt").write_text("mine")

    class Killed(BaseException):
        pass

    def kill(_: Path) -> None:
        if not (artifacts.data / ".new" / "manifest.json").exists() and (artifacts.data / ".ptk-old-train").exists():
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("pretrain_cli.storage.sync_folder", kill)
        with pytest.raises(Killed):
            prepare(small_config(text, 64), artifacts)
    assert (artifacts.data / ".new").is_dir() and not (artifacts.train_rows / "notes.txt").exists()
    assert prepare(small_config(text, 64), artifacts).reused
    assert (artifacts.train_rows / "notes.txt").read_text() == "mine"
    assert sorted(entry.name for entry in artifacts.data.iterdir() if entry.is_dir()) == ["train", "validation"]


@pytest.mark.parametrize("ending", ["json", "ids", "documents.npy"])
def test_a_shard_that_a_power_failure_emptied_is_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    text, artifacts, undisturbed = (
        tmp_path / "text.txt",
        Artifacts(tmp_path / "artifacts"),
        Artifacts(tmp_path / "other"),
    )
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), undisturbed)

    class Killed(BaseException):
        pass

    def kill(_: Staging) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Staging, "begin", kill)
        with pytest.raises(Killed):
            prepare(small_config(text, 32), artifacts)
    emptied = list((artifacts.data / ".work").glob(f"shards-*/task-*.{ending}"))
    assert emptied
    for file in emptied:
        file.write_bytes(b"")
    prepare(small_config(text, 32), artifacts)
    assert everything(artifacts.train_rows) == everything(undisturbed.train_rows)


@pytest.mark.parametrize("length", [32, 64])
def test_shards_that_another_process_encodes_stay_until_it_ends(tmp_path: Path, length: int) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    theirs = artifacts.data / ".work" / "shards-0123456789abcdef" / "0.ids"
    with lock(artifacts.data / ".shards-0-of-2", "preparing"):
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"ids")
        prepare(small_config(text, length), artifacts)
        assert theirs.read_bytes() == b"ids"
    assert prepare(small_config(text, length), artifacts).reused
    assert not theirs.parent.exists() and not (artifacts.data / ".shards-0-of-2").exists()


@pytest.mark.skipif(os.name == "nt", reason="folders are never read-only there")
@pytest.mark.parametrize("name", ["data/train", "tokenizer", "tokenizer/notes"])
def test_my_files_in_a_folder_that_may_not_be_changed_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, artifacts = tmp_path / "text.txt", Artifacts(tmp_path / "artifacts")
    text.write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 60)
    prepare(small_config(text, 32), artifacts)
    folder = artifacts.root / name
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_text("mine")
    before = everything(artifacts.train_rows), everything(artifacts.tokenizer)
    folder.chmod(0o555)
    access = os.access  # which says yes to root
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not (Path(path) == folder and mode & os.W_OK)
    )
    with pytest.raises(UsageError, match=f"{folder}.* can't be written"):
        prepare(small_config(text, 64), artifacts)
    assert (everything(artifacts.train_rows), everything(artifacts.tokenizer)) == before
    monkeypatch.undo()
    folder.chmod(0o755)
    prepare(small_config(text, 64), artifacts)
    assert (folder / "mine.txt").read_text() == "mine"
