"""Text from object storage becomes rows in object storage: the same bytes, from a real S3 server on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_cli import remote
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.shared_folder import Sender, find_artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.encoding import encode_text
from pretrain_cli.data.prepare import PrepareResult, prepare
from pretrain_cli.data.sharing import bring_data, send_data
from pretrain_cli.errors import DataError
from pretrain_cli.evaluation.reading import read_validation
from pretrain_cli.file_systems import fsspec_module
from pretrain_cli.manifest import check_still, read_manifest
from pretrain_cli.progress import SILENT
from pretrain_cli.records import record_files
from pretrain_cli.remote import RemoteFolder, StorageError, pull
from tests.support.preparing import PROSE, Preparing, check_ledger, row_bytes, write_jsonl
from tests.support.s3 import KEYS, free_port, serve

OUT = "s3://bucket/out"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Where the server of s3:// addresses is."""
    found = free_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{found}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PTK_CACHE", str(tmp_path / "cache"))
    fsspec_module().get_filesystem_class("s3").clear_instance_cache()
    return found


@pytest.fixture
def texts(tmp_path: Path, port: int) -> Iterator[Path]:
    """A folder of texts that s3://bucket/in has too."""
    with serve(port):
        folder = tmp_path / "in"
        folder.mkdir()
        for number in range(4):
            name = f"{number}.jsonl"
            write_jsonl(folder / name, [f"Document {number}, {i}. {PROSE}" for i in range(30)])
            RemoteFolder("s3://bucket/in").put(folder / name, name)
        yield folder


def run(tokenizer: Path, *, merge: bool = False, **data: object) -> PrepareResult:
    settings = {"inputs": ["s3://bucket/in/"], "sequence_length": 32, "add_bos": True, **data}
    config = Config.model_validate({"tokenizer": {"path": str(tokenizer)}, "data": settings})
    return prepare(config, find_artifacts(Path(OUT)), merge=merge)


def test_an_address_becomes_a_folder_here_and_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTK_CACHE", str(tmp_path))
    found = find_artifacts(Path("s3://bucket/some/out"))
    assert found.remote == "s3://bucket/some/out" and found.root.is_relative_to(tmp_path)
    assert find_artifacts(Path("some/out")) == Artifacts(Path("some/out"))
    assert find_artifacts(Path("C:/some/out")) == Artifacts(Path("C:/some/out"))


def test_rows_go_to_any_storage_and_nobody_elses_file_is_removed_there(
    preparing: Preparing, byte_level: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTK_CACHE", str(tmp_path / "cache"))
    text = write_jsonl(tmp_path / "a.jsonl", [f"Document {i}. {PROSE}" for i in range(30)])
    _, local = preparing(text, into="local")
    url = f"memory://{tmp_path.name}/out"
    here, there = find_artifacts(Path(url)), RemoteFolder(url)
    for mine in ("data/train/mine.txt", "data/.work/mine.txt"):
        there.put(text, mine)
    data = {"inputs": [str(text)], "sequence_length": 32, "add_bos": True}
    config = Config.model_validate({"tokenizer": {"path": str(byte_level)}, "data": data})
    prepare(config, here)
    assert row_bytes(here) == row_bytes(local)
    prepare(Config.model_validate({**config.model_dump(exclude_unset=True), "data": {**data, "seed": 1}}), here)
    found = there.files()
    wanted = {name: record.size for name, record in read_manifest(here).files.items()}
    assert {name: found.get(name) for name in wanted} == wanted
    assert {"data/train/mine.txt", "data/.work/mine.txt"} <= found.keys()
    elsewhere = Artifacts(tmp_path / "elsewhere", url)
    bring_data(elsewhere, SILENT)
    assert row_bytes(elsewhere) == row_bytes(here)


@pytest.mark.parametrize("name", ["runs/../../../out.txt", "../out.txt", "/out.txt", "runs\\..\\..\\out.txt"])
def test_no_name_in_storage_leads_out_of_the_copy(tmp_path: Path, name: str) -> None:
    there = RemoteFolder(f"memory://{tmp_path.name}/out")
    (tmp_path / "text").write_text("text")
    there.put(tmp_path / "text", name)
    record = record_files(tmp_path, ["text"])["text"]
    with pytest.raises(StorageError, match="leads out of it"):
        pull(there, tmp_path / "copy", {name: record}, SILENT)
    if not name.startswith("/"):
        with pytest.raises(StorageError, match="leads out of it"):
            there.files()
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_rows_that_a_command_has_not_copied_are_not_missing(
    preparing: Preparing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, local = preparing(write_jsonl(tmp_path / "a.jsonl", [f"Document {i}. {PROSE}" for i in range(30)]))
    here = Artifacts(local.root, f"memory://{tmp_path.name}/out")
    send_data(here, SILENT)
    copy = Artifacts(tmp_path / "copy", here.remote)
    bring_data(copy, SILENT, ("validation",))
    manifest = read_manifest(copy)
    assert list(read_validation(copy, manifest))
    next(copy.validation_rows.glob("*.arrow")).write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        check_still(copy, manifest)


def test_a_run_that_is_removed_is_removed_from_storage_too(tmp_path: Path) -> None:
    here = Artifacts(tmp_path / "copy", f"memory://{tmp_path.name}/out")
    there = RemoteFolder(here.remote)
    ours = ("run.json", "model/config.json", "model/.ptk-files.json", "checkpoints/step-000002/config.json")
    names = [f"runs/{run}/{name}" for run in "ab" for name in ours]
    for name in (*names, "runs/a/notes.txt", "evaluation/a/report.json", "latest"):
        (here.root / name).parent.mkdir(parents=True, exist_ok=True)
        (here.root / name).write_text("a")
    hidden = here.root / "runs/b/.ptk-model-1/model/.ptk-files.json"
    hidden.parent.mkdir(parents=True)
    hidden.touch()
    with Sender(Artifacts(tmp_path / "empty", here.remote), there, print) as nothing:
        assert nothing is None and not there.files()
    sender = Sender(here, there, print)
    sender._sent.clear()  # as if all were new
    with sender:
        pass
    assert there.files().keys() == {*names, "runs/a/notes.txt", "evaluation/a/report.json", "latest"}
    there.put(here.latest, "runs/a/checkpoints/step-000001/config.json")  # an old one is never copied here
    with Sender(here, there, print):
        for name in [name for name in names if name.startswith("runs/a/")]:
            (here.root / name).unlink()
        here.latest.unlink()
    assert there.files().keys() == {*names[4:], "runs/a/notes.txt", "evaluation/a/report.json"}


def test_rows_in_object_storage_are_those_of_a_local_prepare(
    texts: Path, tmp_path: Path, preparing: Preparing, byte_level: Path
) -> None:
    _, local = preparing(texts, into="local")
    result = run(byte_level)
    here = find_artifacts(Path(OUT))
    check_ledger(here)
    assert row_bytes(here) == row_bytes(local) and result.documents == 120
    wanted = {name: record.size for name, record in read_manifest(here).files.items()}
    there = RemoteFolder(OUT).files()
    assert {name: there.get(name) for name in wanted} == wanted
    assert run(byte_level).reused
    # Another machine, with nothing in its cache, fetches the rows for training, and notices a damaged one.
    elsewhere = Artifacts(tmp_path / "elsewhere", OUT)
    bring_data(elsewhere, SILENT)
    assert row_bytes(elsewhere) == row_bytes(local)
    name = next(name for name in wanted if name.startswith("data/train/") and name.endswith(".arrow"))
    damaged = tmp_path / "damaged"
    damaged.write_bytes((here.root / name).read_bytes()[:-1] + b"\x7f")
    RemoteFolder(OUT).put(damaged, name)
    with pytest.raises(StorageError, match="other bytes"):
        bring_data(Artifacts(tmp_path / "third", OUT), SILENT)


def test_machines_that_share_no_disk_encode_shards_for_one_that_packs(
    texts: Path, tmp_path: Path, preparing: Preparing, byte_level: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_text.plan_shards, "__defaults__", (2000,))
    for chosen in ("1/2", "2/2"):
        monkeypatch.setenv("PTK_CACHE", str(tmp_path / f"machine-{chosen[0]}"))
        run(byte_level, shard=chosen)
    monkeypatch.setenv("PTK_CACHE", str(tmp_path / "packer"))
    ran: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr("pretrain_cli.data.encoding.executors.encode_shard", lambda *given: ran.append(given))
        run(byte_level, merge=True)
    assert not ran, "every shard was finished already"
    assert row_bytes(find_artifacts(Path(OUT))) == row_bytes(preparing(texts, into="whole")[1])
    assert not [name for name in RemoteFolder(OUT).files() if ".work" in name]


@pytest.mark.slow
def test_ray_without_a_shared_disk_gives_the_rows_of_a_local_prepare(
    texts: Path, preparing: Preparing, byte_level: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(encode_text.plan_shards, "__defaults__", (2000,))
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        run(byte_level, executor="ray")
    finally:
        ray.shutdown()
    assert row_bytes(find_artifacts(Path(OUT))) == row_bytes(preparing(texts, into="whole")[1])


def test_a_server_that_is_away_for_a_while_costs_only_that(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("hello")
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.2)
    folder = RemoteFolder(OUT)
    with serve(port) as server:
        folder.put(tmp_path / "file", "one")
        server.kill()
        server.wait()
    monkeypatch.setattr(remote, "PATIENCE_S", 0.5)
    started = time.monotonic()
    with pytest.raises(StorageError, match="can't be written") as caught:
        folder.put(tmp_path / "file", "two")
    assert caught.value.hint and time.monotonic() - started < 120
    monkeypatch.setattr(remote, "PATIENCE_S", 60.0)
    with serve(port):
        folder.put(tmp_path / "file", "three")
        assert folder.files() == {"three": 5}
