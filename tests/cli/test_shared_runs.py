"""Runs travel between machines over object storage: what is further wins, and nothing that was made is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_cli import remote
from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.cli.shared_folder import Sender
from pretrain_cli.cli.shared_runs import bring_runs
from pretrain_cli.published import record_model
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
