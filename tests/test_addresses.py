"""No secret of an input's address is written or printed, and inputs stay told apart."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pretrain_cli.addresses import identity, is_redacted, redact, redact_address, redact_all
from pretrain_cli.config.load import changed, to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.errors import DataError
from tests.support.commands import SMALL, ptk, refused

PASSWORD, TOKEN = "hunter2SECRET", "tok3nSECRET"
TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money.\n\n" * 120


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://me:SECRET@host/a.txt", "https://redacted@host/a.txt"),
        ("https://SECRET@host:80/a.txt", "https://redacted@host:80/a.txt"),
        ("https://me:SE/CRET@host/a.txt", "https://redacted@host/a.txt"),
        ("https://host/a.txt?X-Amz-Signature=SECRET&X-Amz-Expires=60", "https://host/a.txt?redacted"),
        ("https://host/a.txt#access_token=SECRET", "https://host/a.txt?redacted"),
        ("https://host/a.txt#hf_SECRETSECRETSECRETSECRET", "https://host/a.txt?redacted"),
        ("http://[::1]:80/a.txt?token=SECRET", "http://[::1]:80/a.txt?redacted"),
        ("zip://a.csv::https://me:SECRET@host/b.zip?sig=SECRET", "zip://a.csv::https://redacted@host/b.zip?redacted"),
        ("https:/me:SECRET@host/a.txt", "https:/redacted@host/a.txt"),
        *((f"https://me:SECRET{sign}SECRET@host/a.txt", "https://redacted@host/a.txt") for sign in "'\"<>`"),
    ],
)
def test_an_address_loses_its_secrets(address: str, plain: str) -> None:
    assert redact_address(address) == plain
    assert redact_address(plain) == plain and is_redacted(plain)
    assert redact(f"{address} can't be opened, see '{address}'.") == f"{plain} can't be opened, see '{plain}'."
    assert "SECRET" not in str(DataError(address, address)) + DataError("", address).hint
    assert "SECRET" not in identity(address)


@pytest.mark.parametrize(
    "address",
    [
        *("s3://bucket/part-?.txt", "hf://datasets/owner/name@main/a.parquet", "hf://datasets/owner/name:train"),
        *("folder/a.txt?x=1", "https://host:80/a@b.txt", "https://host/page#part", "name@host", "a: b"),
    ],
)
def test_what_holds_no_secret_stays(address: str) -> None:
    assert redact_address(address) == redact(address) == identity(address) == address
    assert not is_redacted(address)


def test_files_that_only_the_query_tells_apart_stay_apart() -> None:
    one, two = "https://host/get?id=1&token=SECRET", "https://host/get?id=2&token=SECRET"
    assert redact_address(one) != redact_address(two) and identity(one) != identity(two)
    assert identity(one) == identity(one.replace("SECRET", "ANOTHER"))
    assert redact_address(one) == redact_address(one.replace("SECRET", "ANOTHER"))


def test_records_are_redacted_to_the_last_text() -> None:
    address = "https://me:SECRET@host/a.txt"
    record = {"inputs": [[address, "1"]], address: 2, "more": {"hub_token": "SECRET", "notes": (f"{address} is new",)}}
    assert "SECRET" not in str(redact_all(record))
    config = changed(Config(), data__inputs=(address,), trainer={"hub_token": "SECRET"})
    assert "SECRET" not in to_toml(config)


class Guarded(BaseHTTPRequestHandler):
    """Gives its text to whoever knows the password and the token."""

    def do_GET(self) -> None:
        allowed = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        known = self.headers.get("Authorization") == allowed and f"token={TOKEN}" in self.path
        body = TEXT.encode() if known and "none" not in self.path else b""
        self.send_response(200 if known and body else 404 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:{PASSWORD}@127.0.0.1:{server.server_port}/text.txt?token={TOKEN}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_no_command_writes_or_prints_a_secret_of_an_address(tmp_path: Path, address: str) -> None:
    pytest.importorskip("aiohttp")
    wanted = f"--set=data.inputs=['{address}']"
    rows = ("--set", "data.sequence_length=32", "--set", "tokenizer.vocab_size=300")
    lines = [
        ("prepare", address, *rows),
        ("prepare", address, *rows),
        ("prepare", address, "--set", "data.sequence_length=64", "--set", "tokenizer.vocab_size=300"),
        ("plan", address, "--measure", "0"),
        ("train", *SMALL, "--max-steps", "2", "--run", "a", wanted),
        ("train", "--resume", "a", "--max-steps", "3", wanted),
        ("evaluate", "a", "--on", address, "--on", f"mine={address}"),
        ("export", "a"),
        ("runs", "show", "a"),
        ("runs", "list"),
        ("inspect", "--stats"),
        ("generate", "Call", "--max-tokens", "3"),
    ]
    for words in lines:
        for more in ((),) if words[0] in ("train", "export", "prepare") else ((), ("--json",)):
            done = ptk(tmp_path, *words, *more)
            assert done.returncode == 0, (words, done.stderr)
            assert not secrets_in(done.stdout + done.stderr), (words, done.stdout, done.stderr)
    refused(ptk(tmp_path, "prepare", address.replace("text", "none")), 3, "redacted@127.0.0.1")
    wrong = ptk(tmp_path, "prepare", address.replace("me:", "you:"), "--debug")
    assert wrong.returncode == 3 and not secrets_in(wrong.stdout + wrong.stderr)
    written = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert {Path(name).name for name in written} >= {"manifest.json", "run.json", "config.toml", "README.md"}
    assert not [name for name, content in written.items() if secrets_in(content.decode("latin-1"))]
    manifest = next(content for name, content in written.items() if name.endswith("data/manifest.json"))
    assert b"redacted@127.0.0.1" in manifest
    plain = redact_address(address)
    refused(ptk(tmp_path, "prepare", plain), 3, "Give the whole address")


def secrets_in(text: str) -> list[str]:
    return [secret for secret in (PASSWORD, TOKEN) if secret in text]
