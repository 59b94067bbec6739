"""A server that stalls, lies, never ends or leads elsewhere costs a limited time, and is told; no text is half read."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_cli.data.reading import columnar
from pretrain_cli.errors import DataError
from pretrain_cli.file_systems import fsspec_module
from tests.support.hostile_web import LINE, serve
from tests.support.reading import read_path

web_files = pytest.importorskip("pretrain_cli.web_files", reason="the extra http isn't installed")
STALLS = {
    "silent.jsonl": "the server doesn't answer",
    "stalls.jsonl": "the server doesn't answer",
    "drip.jsonl": "bytes came in the last",
    "slow_head.jsonl": "the server doesn't answer",
}
WRONG = {
    "short.jsonl": "the connection ended before the file did",
    "longer.jsonl": "first announced 1,410 bytes, and now sends 14,100",
    "unannounced.jsonl": "larger than the 1.41 kB announced",
    "drops_then_other.jsonl": "the connection ended before the file did",
    "drops_early.jsonl": "the connection ended before the file did",
    "shrunk.jsonl": "it ended after 1.41 kB of 14.1 kB",
    "part.jsonl": "answers with a part of it",
    "other_part.jsonl": "answers with a part of it",
    "larger_part.jsonl": "answers with a part of it",
    "unsized_part.jsonl": "answers with a part of it",
    "loop.jsonl": "it redirects without an end",
    "to_file.jsonl": "it redirects to file:///etc/passwd, which isn't a web address",
    "denied.jsonl": "the server answers 403",
    "absent.jsonl": "doesn't exist",
    "endless_page": "it is without an end",
    "endless.jsonl": "it is without an end",
    "bomb.jsonl": "isn't text",
    "maze/": "link to others",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve() as address:
        yield address


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "ANSWER_S", 1.5)
    monkeypatch.setattr(web_files, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(web_files, "MOST_UNSIZED", 2 * 10**7)
    monkeypatch.setattr(web_files, "MOST_PAGES", 50)
    fsspec_module().get_filesystem_class("http").clear_instance_cache()


@pytest.mark.parametrize("name", STALLS)
def test_a_server_that_stalls_is_given_up(server: str, name: str) -> None:
    with pytest.raises(DataError, match=STALLS[name]):
        read_path(f"{server}/{name}")


@pytest.mark.parametrize("name", WRONG)
def test_what_a_server_gives_is_the_whole_file_or_an_error(server: str, name: str) -> None:
    with pytest.raises(DataError, match=WRONG[name]):
        read_path(f"{server}/{name}")


@pytest.mark.parametrize("name", ["fine", "encoded", "no_ranges", "unsized"])
def test_servers_that_know_little_of_http_are_read(server: str, name: str) -> None:
    lines = 20_000_000 // len(LINE) if name == "no_ranges" else 100
    assert len(read_path(f"{server}/{name}.jsonl").texts) == lines


def test_a_connection_that_ends_early_is_continued_where_it_ended(server: str) -> None:
    with fsspec_module().open(f"{server}/drops.jsonl") as file:
        assert file.read() == LINE * 60_000


def test_a_page_of_the_internet_does_not_lead_into_this_network(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_path(f"{server}/inwards.jsonl").texts) == 100  # its own page may
    private = web_files.is_private
    monkeypatch.setattr(web_files, "is_private", lambda address: address != "127.0.0.2" and private(address))
    with (
        serve("127.0.0.2") as outside,
        pytest.raises(DataError, match=r"127\.0\.0\.1, an address in this machine's own"),
    ):
        read_path(f"{outside}/inwards.jsonl")


@pytest.mark.parametrize(
    ("address", "private"),
    [("8.8.8.8", False), ("2606:4700::1111", False), ("127.0.0.1", True), ("10.1.2.3", True), ("169.254.169.254", True),
     ("192.168.0.1", True), ("::1", True), ("fe80::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", True)],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet(address: str, private: bool) -> None:
    assert web_files.is_private(address) is private


def test_a_file_in_an_archive_is_read_from_the_middle(server: str) -> None:
    with fsspec_module().open(f"zip://inner.jsonl::{server}/archive.zip") as file:
        assert file.read() == LINE * 100
    with fsspec_module().open(f"{server}/ranges.jsonl") as file:
        file.seek(len(LINE) * 5)
        assert file.read(len(LINE)) == LINE
    with (
        fsspec_module().open(f"{server}/fine.jsonl") as file,
        pytest.raises(OSError, match="what comes after its beginning"),
    ):
        file.seek(len(LINE) * 5)
        file.read(10)


def test_a_table_that_must_be_in_memory_takes_half_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(bytes(10_001)))
    monkeypatch.setattr(columnar, "available_bytes", lambda: 20_000)
    with pytest.raises(DataError, match=r"holds over 10 kB, half of the free memory"):
        read_path(tmp_path / "a.parquet.gz")


def test_a_login_in_netrc_opens_what_it_is_for(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="the server answers 401"):
        read_path(f"{server}/members.jsonl")
    logins = tmp_path / "netrc"
    logins.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(logins))
    fsspec_module().get_filesystem_class("http").clear_instance_cache()
    assert len(read_path(f"{server}/members.jsonl").texts) == 100
