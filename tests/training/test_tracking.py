"""W&B gets what it should, and never costs a run anything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import MissingDependencyError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.training.keeping import tracking
from pretrain_cli.training.keeping.resume import read_config
from pretrain_cli.training.keeping.wandb_state import LOG, connection
from pretrain_cli.training.run import train
from tests.support.runs import Heard, record_of, small
from tests.support.wandb_server import wandb_server


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
    server.server_close()


def sync_folder(line: str) -> Path:
    """The folder of the `wandb sync` command that a line ends with."""
    return Path(line.split("wandb sync ")[1].split()[-1])


def delay(run: RunFolder, trouble: str) -> None:
    """What W&B cost the run, as its record says: under 10 s, and printed for the table in docs/concepts/tracking.md."""
    seconds = record_of(run).wandb.seconds
    sys.stdout.write(f"{trouble}: {seconds} s\n")
    assert seconds < 10


def wanted(**values: object) -> Config:
    return small(train__max_steps=3, tracking__report_to="wandb", **values)


def test_auto_tracks_only_where_somebody_is_logged_in(monkeypatch) -> None:
    assert tracking.why_no_wandb(Config()) == "not logged in: wandb login"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert not tracking.why_no_wandb(Config())
    assert tracking.why_no_wandb(changed(Config(), tracking__mode="disabled")) == "tracking.mode is disabled"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    off = tracking.why_no_wandb(changed(Config(), tracking__report_to="wandb"))
    assert off == "WANDB_MODE switches it off"


def test_the_state_is_shown_before_anything_is_opened() -> None:
    heard = Heard()
    tracking.say_wandb(Config(), heard)
    assert heard.states["W&B"] == "off, not logged in: wandb login"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("context deadline exceeded\nwhile retrying: dial tcp 127.0.0.1:9: connection refused", "doesn't answer"),
        ("context deadline exceeded\nwhile retrying: lookup x: no such host", "doesn't answer"),
        ('returned error 401: {"errors":[{"message":"unauthorized"}]}', "refuses the key"),
        ("returned error 404: {}", "answers with error 404"),
    ],
)
def test_a_server_that_fails_is_told_in_the_users_words(monkeypatch, said: str, reason: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    error = RuntimeError(f"Failed to get resume status for run abcd: {said}")
    assert tracking._reason(error) == f"wandb.example {reason}"


def test_a_wrong_setting_of_wandbs_is_named() -> None:
    wandb = pytest.importorskip("wandb")
    with pytest.raises(ValueError, match="mode") as caught:
        wandb.Settings(mode="abc")
    assert tracking._reason(caught.value).startswith("mode: Input should be 'online', ")


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="wandb"):
        tracking.why_no_wandb(changed(Config(), tracking__report_to="wandb"))


def test_the_connection_is_what_wandbs_log_says_last(tmp_path) -> None:
    assert connection(tmp_path) == ""
    (tmp_path / "logs").mkdir()
    log = tmp_path / LOG
    lines = ['{"msg":"filestream: request sent","status":"200 OK"}', '{"msg":"api: retrying error","error":"refused"}']
    for text, state in (("{}", ""), (lines[0], "synced"), ("\n".join(lines), "retrying")):
        log.write_text(text)
        assert connection(tmp_path) == state


@pytest.mark.slow
def test_without_a_key_the_run_is_offline_and_says_how_to_send_it(rows) -> None:
    heard, prompts = Heard(), ["The whale", "Call me"]
    config = wanted(train__sample_prompts=prompts, train__eval_steps=2)
    result = train(config, rows, heard, run_name="no-key")
    assert result.status == "finished" and "Send the run later: wandb sync" in result.tracking
    tables = [json.loads(file.read_text()) for file in rows.run("no-key").path.rglob("media/table/*.json")]
    assert [row[:2] for row in max(tables, key=lambda table: len(table["data"]))["data"]] == [
        [step, prompt] for step in (2, 3) for prompt in prompts
    ]
    assert heard.states["W&B"].startswith("offline, not logged in")
    lines = [text for text in heard.notes + heard.warnings if "wandb sync" in text]
    assert len(lines) == 1 and sync_folder(lines[0]).parent.parent == rows.run("no-key").path
    assert record_of(rows.run("no-key")).wandb.mode == "offline"
    delay(rows.run("no-key"), "no key")


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["closed", "silent", "refusing"])
def test_a_server_in_trouble_costs_less_than_ten_seconds(rows, monkeypatch, request, trouble: str) -> None:
    url = "http://127.0.0.1:9" if trouble == "closed" else request.getfixturevalue(trouble)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    heard, began = Heard(), time.monotonic()
    assert train(wanted(), rows, heard, run_name=f"trouble-{trouble}").status == "finished"
    assert time.monotonic() - began < 10 + 3
    assert heard.states["W&B"].startswith("offline, 127.0.0.1 ")
    lines = [text for text in heard.notes + heard.warnings if "wandb sync" in text]
    assert len(lines) == 1 and sync_folder(lines[0]).is_dir()
    delay(rows.run(f"trouble-{trouble}"), trouble)


@pytest.mark.slow
def test_everything_arrives_and_a_resume_continues_the_same_run(rows, monkeypatch) -> None:
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        heard = Heard()
        train(wanted(), rows, heard, run_name="tracked")
        train(small(train__max_steps=5, tracking__report_to="wandb"), rows, resume="tracked")
    assert heard.states["W&B"].split()[1].startswith("http") and not heard.warnings
    steps = {line["_step"]: line for line in received.history}
    assert {1, 2, 3} <= set(steps)
    for key in ("loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "mfu", "memory_mb"):
        assert key in steps[2], key
    assert "validation_loss" in steps[3]
    assert received.config["train"]["value"]["max_steps"] in (3, 5)
    assert received.config["data_fingerprint"]["value"] == read_manifest(rows).fingerprint
    assert received.exit_code == 0 and len(received.runs) == 1
    assert sorted(steps) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_resume_sends_what_a_kill_kept_from_being_sent(rows, monkeypatch) -> None:
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        train(wanted(), rows, run_name="cut-off")
        received.history[:] = [line for line in received.history if line["_step"] < 2]
        train(small(train__max_steps=4, tracking__report_to="wandb"), rows, resume="cut-off")
    assert [line["_step"] for line in received.history] == [1, 2, 3, 4]
    assert all("loss" in line for line in received.history)


@pytest.mark.slow
def test_an_offline_run_is_sent_by_the_command_that_was_named(rows, monkeypatch) -> None:
    heard = Heard()
    train(wanted(), rows, heard, run_name="sent-later")
    line = next(text for text in heard.notes if "wandb sync" in text)
    with wandb_server() as received:
        words = ["sync", *line.split("wandb sync ")[1].split()]
        settings = {**os.environ, "WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": received.url}
        done = subprocess.run([sys.executable, "-m", "wandb", *words], env=settings, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {1, 2, 3} <= {line["_step"] for line in received.history}


@pytest.mark.slow
def test_json_stays_one_object_where_transformers_prints_at_its_import(rows, tmp_path) -> None:
    """Under WANDB_MODE=offline it prints a line to stdout."""
    words = ["train", "--artifacts", str(rows.root), "--run", "offline-json", "--size", "tiny", "--max-steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pretrain_cli", *words, "--json", "--quiet"],
        env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout)["steps"] == 1


@pytest.mark.slow
def test_the_key_is_in_no_file(rows, monkeypatch) -> None:
    key = "secret" + "7" * 34
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        train(wanted(), rows, run_name="keyed")
    files = [file for file in rows.run("keyed").path.rglob("*") if file.is_file()]
    assert len(files) > 5 and not [file for file in files if key.encode() in file.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "trackio", "mlflow"])
def test_trainers_own_trackers_get_the_lines_too(rows, name: str) -> None:
    pytest.importorskip(name)
    train(small(train__max_steps=3, tracking__report_to=name), rows, run_name=f"with-{name}")
    assert name != "tensorboard" or list((rows.run("with-tensorboard").path / "tensorboard").rglob("events.*"))


def test_another_trackers_error_ends_that_tracker_alone() -> None:
    class TrackioCallback:
        calls = 0

        def on_log(self) -> str:
            self.calls += 1
            if self.calls == 2:
                raise ConnectionError("its server went away")
            return "logged"

    class OtherCallback:
        def on_log(self) -> None:
            raise RuntimeError("not a tracker's")

    callbacks, warnings = [TrackioCallback(), OtherCallback()], []
    tracking.guard_callbacks(callbacks, ["trackio"], warnings.append)
    assert [callbacks[0].on_log() for _ in range(3)] == ["logged", None, None] and callbacks[0].calls == 2
    assert len(warnings) == 1 and "trackio stopped (its server went away)" in warnings[0]
    with pytest.raises(RuntimeError):
        callbacks[1].on_log()


@pytest.mark.slow
def test_an_outage_in_the_middle_stops_nothing(rows, monkeypatch) -> None:
    with wandb_server() as received:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", received.url)
        heard = Heard(step_2=lambda: monkeypatch.setattr("tests.support.wandb_server.answer", broken))
        began = time.monotonic()
        assert train(wanted(), rows, heard, run_name="outage").status == "finished"
        assert time.monotonic() - began < 10 + 3
    lines = [json.loads(line) for line in rows.run("outage").metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    delay(rows.run("outage"), "outage")


def broken(*_: object) -> dict[str, object]:
    raise ConnectionError("the server went away")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", ".wandb"])
def test_settings_in_the_working_folder_send_the_key_nowhere(rows, monkeypatch, tmp_path, name: str) -> None:
    """wandb itself sends it to the server that they name; the user's own settings count."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with wandb_server() as theirs, wandb_server() as mine:
        for folder, server in ((tmp_path / "settings", mine), (tmp_path / "here" / name, theirs)):
            folder.mkdir(parents=True)
            (folder / "settings").write_text(f"[default]\nbase_url = {server.url}\n")
        monkeypatch.chdir(tmp_path / "here")
        heard = Heard()
        train(wanted(), rows, progress=heard, run_name=f"beside-{name.strip('.')}-{len(name)}")
    assert any(line.startswith(f"{name}/settings isn't read") for line in heard.notes), heard.notes
    assert theirs.operations == [] and mine.operations


def test_a_runs_own_folder_does_not_say_whom_to_upload_to(rows) -> None:
    train(small(train__max_steps=1, tracking__entity="stranger"), rows, run_name="theirs")
    assert 'entity = "stranger"' in rows.run("theirs").config.read_text()
    assert read_config(rows.run("theirs")).tracking.entity == ""
