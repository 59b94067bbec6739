"""A storage that stalls, lies or never ends costs a limited time, and is told; nothing lands outside of ptk's copy."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pretrain_cli import file_systems
from pretrain_cli.data.encoding import executors
from pretrain_cli.errors import DataError, PtkError
from pretrain_cli.file_systems import fsspec_module
from pretrain_cli.records import FileRecord
from pretrain_cli.remote import RemoteFolder, StorageError
from tests.support.hostile_s3 import BODY, LINE, serve
from tests.support.reading import read_path
from tests.support.s3 import KEYS


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.fixture(autouse=True)
def limits(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    for name in ("LIST_S", "READ_S"):
        monkeypatch.setattr(file_systems, name, 2.0)
    monkeypatch.setattr("pretrain_cli.remote.PATIENCE_S", 0.0)
    fsspec_module().get_filesystem_class("s3").clear_instance_cache()
    yield
    fsspec_module().get_filesystem_class("s3").clear_instance_cache()
    file_systems.unfinished.clear()


def test_a_whole_file_is_read() -> None:
    assert len(read_path("s3://bucket/fine/").texts) == 100


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("endless/", "wasn't done after 2.0 s"),
        ("drip/a.jsonl", "wasn't done after 2.8 s"),
        ("short/a.jsonl", "not all of its 7,600 bytes came"),
        ("page/", "doesn't exist"),
    ],
)
def test_what_a_storage_gives_is_the_whole_text_or_an_error(name: str, told: str) -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match=told):
        read_path(f"s3://bucket/{name}")
    assert time.monotonic() - begun < 20


def test_a_byte_that_no_text_has_is_read_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.hostile_s3.BODY", LINE + b"\xff")
    with fsspec_module().open("s3://bucket/fine/a.jsonl") as file:
        assert file.read(len(LINE) + 1) == LINE + b"\xff"


def test_nothing_is_copied_that_is_not_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="leads out of it"):
        RemoteFolder("s3://bucket/outside").files()
    folder = RemoteFolder("s3://bucket/fine")
    with pytest.raises(StorageError, match="other bytes than ptk wrote"):
        folder.get("a.jsonl", tmp_path / "a", FileRecord(size=len(BODY) - 1, hash="0" * 32))
    for way in ("short", "drip"):
        with pytest.raises(PtkError, match=r"bytes came|wasn't done"):
            RemoteFolder(f"s3://bucket/{way}").get("a.jsonl", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def drip() -> None:
    """As a read of pyarrow's that was given up."""
    file_systems.unfinished.set()
    threading.Thread(target=time.sleep, args=(60,)).start()


def test_a_worker_does_not_wait_for_a_storage_that_was_given_up() -> None:
    began = time.monotonic()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=executors._begin_worker) as pool:
        pool.submit(drip).result()
    assert time.monotonic() - began < 50
