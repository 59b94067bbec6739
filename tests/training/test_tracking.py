"""Does W&B get what it should, and never cost a run anything?"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.training import tracking
from pretrain_cli.training.record import read_record
from pretrain_cli.training.run import train
from tests.training.conftest import Heard, small
from tests.training.wandb_server import wandb_server


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path) -> Iterator[None]:
    """No login of this machine's own, and none of an earlier test's settings: wandb keeps them by process."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    yield
    import wandb

    wandb.teardown()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never answers."""
    listener, held = socket.create_server(("127.0.0.1", 0), backlog=50), []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that knows no key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"errors":[{"message":"unauthorized"}]}')

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def wanted(**values: object) -> Config:
    return small(train__max_steps=3, tracking__report_to="wandb", **values)


def test_auto_tracks_only_where_somebody_is_logged_in(monkeypatch) -> None:
    assert not tracking.wants_wandb(Config())
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert tracking.wants_wandb(Config())
    assert not tracking.wants_wandb(changed(Config(), tracking__mode="disabled"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not tracking.wants_wandb(changed(Config(), tracking__report_to="wandb"))


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="wandb"):
        tracking.wants_wandb(changed(Config(), tracking__report_to="wandb"))


def test_without_a_key_the_run_is_offline_and_says_how_to_send_it(rows) -> None:
    heard = Heard()
    assert train(wanted(), rows, heard, run_name="no-key").status == "finished"
    assert heard.states["wandb"] == "offline"
    lines = [text for text in heard.notes + heard.warnings if "wandb sync" in text]
    assert len(lines) == 1 and str(rows.run("no-key").path) in lines[0]
    assert read_record(rows.run("no-key"))["wandb"]["mode"] == "offline"


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["closed", "silent", "refusing"])
def test_a_server_in_trouble_costs_less_than_ten_seconds(rows, monkeypatch, request, trouble: str) -> None:
    url = "http://127.0.0.1:9" if trouble == "closed" else request.getfixturevalue(trouble)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    heard, began = Heard(), time.monotonic()
    assert train(wanted(), rows, heard, run_name=f"trouble-{trouble}").status == "finished"
    assert time.monotonic() - began < 10 + 3
    assert heard.states["wandb"] == "offline"
    assert sum("wandb sync" in text for text in heard.notes + heard.warnings) == 1


@pytest.mark.slow
def test_everything_arrives_and_a_resume_continues_the_same_run(rows, monkeypatch) -> None:
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        heard = Heard()
        train(wanted(), rows, heard, run_name="tracked")
        train(small(train__max_steps=5), rows, resume="tracked")
    assert heard.states["wandb"].startswith("online http") and not heard.warnings
    steps = {line["_step"]: line for line in received.history}
    assert {1, 2, 3} <= set(steps)
    for key in ("loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "mfu", "memory_mb"):
        assert key in steps[2], key
    assert "validation_loss" in steps[3]
    assert received.config["train"]["value"]["max_steps"] in (3, 5)
    assert received.config["data_fingerprint"]["value"] == rows.read_manifest()["fingerprint"]
    assert received.exit_code == 0 and len(received.runs) == 1


@pytest.mark.slow
def test_an_outage_in_the_middle_stops_nothing(rows, monkeypatch) -> None:
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        heard = Heard(step_2=lambda: monkeypatch.setattr("tests.training.wandb_server.answer", broken))
        began = time.monotonic()
        assert train(wanted(), rows, heard, run_name="outage").status == "finished"
        assert time.monotonic() - began < 10 + 3
    lines = [json.loads(line) for line in rows.run("outage").metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]


def broken(*_: object) -> dict[str, object]:
    raise ConnectionError("the server went away")
