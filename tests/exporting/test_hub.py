"""`ptk export --push-to-hub` against a stand-in for the hub on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.exporting.run import export
from pretrain_cli.storage import write_json
from tests.support.tiny import make_model

TOKEN = "hf_stand_in"


class Hub(ThreadingHTTPServer):
    """Takes one repository's files, as the hub's own addresses do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.checked: list[str] = []
        self.asked = 0


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked += 1
        self._answer(
            {"name": "me", "type": "user"} if self._known() else {"error": "no"}, 200 if self._known() else 401
        )

    def do_POST(self) -> None:
        size = self.headers.get("content-length")
        body = self._chunks() if size is None else self.rfile.read(int(size))
        if self.path.endswith("/repos/create"):
            self.server.created.append(json.loads(body))
            self._answer({"url": f"http://{self.headers['host']}/me/whale", "id": "me/whale", "name": "me/whale"})
        elif self.path.endswith("/validate-yaml"):
            self.server.checked.append(json.loads(body)["content"])
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"http://{self.headers['host']}/me/whale/commit/1"
            self._answer({"success": True, "commitOid": "1" * 40, "commitUrl": address})
        else:
            self._answer({"error": "not here"}, 404)

    def _known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"

    def _chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, value: dict, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    yield server
    server.shutdown()
    server.server_close()


def test_a_push_makes_a_private_repository_with_every_file_of_the_export(hub: Hub, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "tiny")
    result = export(Artifacts(tmp_path / "artifacts"), run=str(folder), push_to_hub="me/whale")
    assert hub.created[0]["name"] == "whale" and hub.created[0].get("private", hub.created[0].get("visibility"))
    assert hub.files.keys() == {file.name for file in result.files}
    assert hub.files["model.safetensors"] == (result.path / "model.safetensors").read_bytes()
    assert result.address.endswith("me/whale")


def test_a_push_sends_nothing_that_lay_in_the_folder_before(hub: Hub, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "secrets.env").write_text("TOKEN=1")
    (mine / "novel[1].txt").write_text("unpublished")
    result = export(
        Artifacts(tmp_path / "artifacts"),
        to="gguf",
        run=str(make_model(tmp_path / "tiny[1]")),
        output=mine,
        push_to_hub="me/whale",
    )
    assert hub.files.keys() == {file.name for file in result.files} == {"tiny[1]-f16.gguf"}


def test_the_card_that_is_pushed_names_the_repository_and_passes_the_hubs_check(hub: Hub, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    run = artifacts.run("first")
    make_model(run.model)
    write_json(run.record, {"steps": 9, "versions": {}})
    export(artifacts, run="first", push_to_hub="me/whale")
    card = hub.files["README.md"].decode()
    assert 'from_pretrained("me/whale")' in card
    assert hub.checked == [card] and yaml.safe_load(card.split("---")[1])["license"] == "unknown"


def test_without_a_login_nothing_is_asked_or_written(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="logged in"):
        export(Artifacts(tmp_path / "artifacts"), run=str(make_model(tmp_path / "tiny")), push_to_hub="me/whale")
    assert not hub.asked and not (tmp_path / "artifacts").exists()


def test_a_token_that_the_hub_does_not_know_is_a_usage_error(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UsageError, match="accept"):
        export(Artifacts(tmp_path / "artifacts"), run=str(make_model(tmp_path / "tiny")), push_to_hub="me/whale")


def test_a_hub_that_cannot_be_reached_is_said_before_the_export(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="reached"):
        export(Artifacts(tmp_path / "artifacts"), run=str(make_model(tmp_path / "tiny")), push_to_hub="me/whale")
    assert not (tmp_path / "artifacts").exists()


def test_a_name_that_cannot_be_a_repository_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name"):
        export(Artifacts(tmp_path / "artifacts"), run=str(make_model(tmp_path / "tiny")), push_to_hub="a/b/c")
