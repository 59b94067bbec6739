"""Runs travel between machines over object storage: what is further wins, and nothing that was made is lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pretrain_cli import remote
from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.cli.sent import SENT, changed_since
from pretrain_cli.cli.shared_folder import Sender
from pretrain_cli.cli.shared_runs import bring_runs
from pretrain_cli.published import record_model
from pretrain_cli.records import record_files
from pretrain_cli.remote import RemoteFolder, StorageError
from pretrain_cli.storage import write_json
from tests.support.outages import failing_reads


def make_run(artifacts: Artifacts, *, weights: bytes, steps: int, status: str = "finished") -> RunFolder:
    run = RunFolder(artifacts.runs / "first")
    run.model.mkdir(parents=True, exist_ok=True)
    (run.model / "model.safetensors").write_bytes(weights)
    record_model(run.model)
    write_json(run.record, {"version": 1, "run": "first", "status": status, "steps": steps})
    artifacts.latest.write_text("first\n")
    return run


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Artifacts, Artifacts, RemoteFolder]:
    """Two machines, and the storage between them."""
    url = f"memory://{tmp_path.name}/out"
    return Artifacts(tmp_path / "one", url), Artifacts(tmp_path / "two", url), RemoteFolder(url)


def send(artifacts: Artifacts, storage: RemoteFolder) -> list[str]:
    """What a command does that makes nothing; its warnings."""
    warnings: list[str] = []
    with Sender(artifacts, storage, warnings.append, bring_runs(artifacts, storage)):
        pass
    return warnings


def make_export(artifacts: Artifacts, weights: bytes) -> None:
    folder = artifacts.exports / "first-hf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    files = {name: own.model_dump() for name, own in record_files(folder, ["model.safetensors"]).items()}
    write_json(folder / ".ptk-export.json", {"version": 1, "files": files})


class Killed(BaseException):
    """Ends a command where it is, as SIGKILL."""


def counted_puts(storage: RemoteFolder, monkeypatch: pytest.MonkeyPatch, most: float = math.inf) -> list[str]:
    """The names that are sent from now on; after ``most`` files the process is killed."""
    kind, sent = type(storage._system[0]), list[str]()
    real = kind.put_file

    def put_file(system: object, path: str, name: str, **more: object) -> None:
        if len(sent) >= most:
            raise Killed
        sent.append(name.partition("/out/")[2])
        real(system, path, name, **more)

    monkeypatch.setattr(kind, "put_file", put_file)
    return sent


def test_a_changed_file_of_the_same_size_is_fetched_and_a_damaged_one_refused(
    machines: tuple[Artifacts, Artifacts, RemoteFolder],
) -> None:
    one, two, storage = machines
    run = make_run(one, weights=b"aaaa", steps=10)
    send(one, storage)
    assert bring_runs(two, storage) == []
    there = two.runs / "first" / "model" / "model.safetensors"
    assert there.read_bytes() == b"aaaa" and two.latest.read_text() == "first\n"
    make_run(one, weights=b"bbbb", steps=20)
    send(one, storage)
    bring_runs(two, storage)
    assert there.read_bytes() == b"bbbb"
    (run.model / "model.safetensors").write_bytes(b"cccc")  # not what its record names
    storage.put(run.model / "model.safetensors", "runs/first/model/model.safetensors")
    (two.runs / "first" / "model" / "model.safetensors").unlink()
    with pytest.raises(StorageError, match="other bytes"):
        bring_runs(two, storage)


def test_what_could_not_be_sent_is_kept_and_sent_by_the_next_command(
    machines: tuple[Artifacts, Artifacts, RemoteFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, storage = machines
    make_run(one, weights=b"aaaa", steps=10, status="running")
    send(one, storage)
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    with monkeypatch.context() as away:
        away.setattr(type(storage._system[0]), "put_file", lambda *_: (_ for _ in ()).throw(OSError("no route")))
        with pytest.raises(StorageError, match="can't be written") as told, Sender(one, storage, print):
            make_run(one, weights=b"bbbb", steps=20)
        assert str(one.root) in (told.value.hint or "")
        warnings: list[str] = []
        with pytest.raises(ValueError, match="first"), Sender(one, storage, warnings.append, ["first"]):
            raise ValueError("first")
        assert len(warnings) == 1, "the command's own error is told, the storage's beside it"
    assert bring_runs(one, storage) == ["first"], "it is further here"
    assert (one.runs / "first" / "model" / "model.safetensors").read_bytes() == b"bbbb"
    send(one, storage)
    assert bring_runs(two, storage) == []
    assert (two.runs / "first" / "model" / "model.safetensors").read_bytes() == b"bbbb"


def test_a_network_that_fails_for_a_while_costs_only_that(
    machines: tuple[Artifacts, Artifacts, RemoteFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, storage = machines
    make_run(one, weights=b"aaaa", steps=10)
    send(one, storage)
    failing = failing_reads(storage, monkeypatch)
    bring_runs(two, storage)
    assert (two.runs / "first" / "model" / "model.safetensors").read_bytes() == b"aaaa" and not failing


@pytest.mark.parametrize("sent_before", range(4))
def test_what_a_kill_kept_from_being_sent_is_sent_by_the_next_command_once(
    machines: tuple[Artifacts, Artifacts, RemoteFolder], monkeypatch: pytest.MonkeyPatch, sent_before: int
) -> None:
    one, two, storage = machines
    make_run(one, weights=b"aaaa", steps=10)
    make_export(one, b"aaaa")
    send(one, storage)
    with (
        monkeypatch.context() as killing,
        pytest.raises(Killed),
        Sender(one, storage, print, bring_runs(one, storage)),
    ):
        make_run(one, weights=b"bbbb", steps=10)  # as far as before
        make_export(one, b"bbbb")
        one.latest.write_text("other\n")
        counted_puts(storage, killing, sent_before)
    send(one, storage)
    for name in storage.files():
        storage.get(name, two.root / name)
        assert (two.root / name).read_bytes() == (one.root / name).read_bytes(), name
    assert (two.exports / "first-hf" / "model.safetensors").read_bytes() == b"bbbb"
    assert (two.runs / "first" / "model" / "model.safetensors").read_bytes() == b"bbbb"
    again = counted_puts(storage, monkeypatch)
    send(one, storage)
    send(two, storage)
    assert not [name for name in again if name.startswith("runs/")], "nothing that is there goes there again"
    assert not changed_since(one.root, "exports/first-hf")


def test_half_a_line_of_what_was_sent_costs_only_that_file(
    machines: tuple[Artifacts, Artifacts, RemoteFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, storage = machines
    make_export(one, b"aaaa")
    send(one, storage)
    one.root.joinpath(SENT).write_text(one.root.joinpath(SENT).read_text()[:-5])
    again = counted_puts(storage, monkeypatch)
    send(one, storage)
    assert again == ["exports/first-hf/.ptk-export.json"]
    send(one, storage)
    assert len(again) == 1
