"""Commands on an artifact folder of which this user may not read or write all: two clear lines, and nothing half done.

Root may do everything, so its overrides are dropped where these tests run as root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.locking import is_locked, lock
from pretrain_cli.refusals import check_writable
from pretrain_cli.storage import write_json, write_text
from tests.support.commands import Outcome
from tests.support.tiny import make_model

ORDINARY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
SEVERAL = """
import contextlib, io, json, os, sys
from pretrain_cli.cli import app
found = []
for line in json.loads(sys.argv[1]):
    if line.startswith("chmod "):
        _, mode, path = line.split()
        os.chmod(path, int(mode, 8))
        continue
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = app.run(line.split())
    found.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(found))
"""
"""Runs command lines, and `chmod MODE PATH`, in one process: what takes long is its start."""


def _prefix() -> list[str]:
    """What makes root an ordinary user for whom permission bits count."""
    return list(ORDINARY) if os.name != "nt" and os.geteuid() == 0 else []


def _works() -> bool:
    if os.name == "nt":
        return False
    barred = "import os, tempfile; folder = tempfile.mkdtemp(); os.chmod(folder, 0); print(os.access(folder, os.R_OK))"
    try:
        done = subprocess.run([*_prefix(), sys.executable, "-c", barred], capture_output=True, text=True)
    except OSError:
        return False
    return done.stdout.strip() == "False"


pytestmark = pytest.mark.skipif(not _works(), reason="permission bits don't count for this user, or not on this system")


@pytest.fixture
def folder(empty: Path) -> Iterator[Path]:
    """An artifact folder with two runs; what a test takes away of its permissions is given back."""
    artifacts = Artifacts(empty / "artifacts")
    for name in ("first", "second"):
        run = artifacts.run(name)
        write_json(run.record, {"status": "finished", "started": "2026-01-01T10:00:00", "steps": 2, "tokens": 512})
        write_text(run.config, "[train]\nseed = 0\n")
        write_text(run.metrics, "".join(json.dumps({"step": step, "loss": 5.0 - step}) + "\n" for step in (1, 2)))
        write_text(run.path / ".lock", "")
        make_model(run.model)
        write_text(run.checkpoint(2) / "ptk.json", "{}")
        write_json(run.evaluation / "report.json", {"version": 1, "models": []})
    write_text(artifacts.latest, "second\n")
    yield artifacts.root
    subprocess.run(["chmod", "-R", "u+rwX", str(empty)], check=True)


@pytest.fixture
def as_user(folder: Path) -> Callable[..., list[Outcome]]:
    """Run command lines one after the other as an ordinary user; `chmod MODE PATH` has no outcome."""

    def run(*lines: str) -> list[Outcome]:
        words = [*_prefix(), sys.executable, "-c", SEVERAL, json.dumps(lines)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        return [Outcome(*each) for each in json.loads(done.stdout.splitlines()[-1])]

    return run


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_that_may_not_be_read_leaves_the_others_listed(as_user, folder: Path) -> None:
    places = [
        ("", "000"),
        ("", "444"),
        *((name, "000") for name in ("run.json", "metrics.jsonl", "evaluation/report.json")),
    ]
    words = ("runs list --json", "runs show second --json", "runs show first", "doctor --verify --json")
    run = folder / "runs/second"
    lines = [(f"chmod {mode} {run / each}", *words, f"chmod 755 {run / each}") for each, mode in places]
    outcomes = iter(as_user(*(line for each in lines for line in each)))
    for place, _ in places:
        listed, shown, other, verified = (next(outcomes) for _ in words)
        first, second = listed.json["runs"]
        assert [first["name"], second["name"]] == ["first", "second"]
        assert (first["status"], first["damage"]) == ("finished", "")
        assert second["damage"].endswith("can't be read: Permission denied.")
        assert second["status"] == ("unknown" if place in ("", "run.json") else "finished")
        assert shown.json["summary"]["damage"] == second["damage"]
        assert (listed.code, shown.code, other.code) == (0, 0, 0)
        if place != "metrics.jsonl":  # of which this record has no hash
            assert verified.code == 3 and any("second" in each["path"] for each in verified.json["differs"])


def test_verify_names_the_folder_that_may_not_be_read(as_user, folder: Path) -> None:
    places = [
        folder / "runs/second" / each for each in ("model", "checkpoints", "checkpoints/step-000002", "evaluation")
    ]
    lines = [(f"chmod 000 {place}", "doctor --verify --json", f"chmod 755 {place}") for place in places]
    for place, verified in zip(places, as_user(*(line for each in lines for line in each)), strict=True):
        assert any(each["path"].endswith(str(place.relative_to(folder))) for each in verified.json["differs"])


def test_a_latest_run_that_may_not_be_read_is_not_said_to_be_missing(as_user, folder: Path) -> None:
    (folder / "latest").chmod(0)
    (shown,) = as_user("runs show")
    assert shown.error_lines[0].endswith("latest can't be read: Permission denied.")
    assert shown.error_lines[1] == "Hint: Name a run: first, second."


def test_completion_offers_runs_beside_one_that_may_not_be_read(folder: Path) -> None:
    (folder / "runs/second").chmod(0)
    words = (
        "from pathlib import Path; from pretrain_cli.artifacts import Artifacts;"
        "from pretrain_cli.cli.completion_values import RUNS, Line, completions;"
        "print(*completions(RUNS, Line('show', Artifacts(Path('artifacts')), None, {}), ''))"
    )
    done = subprocess.run([*_prefix(), sys.executable, "-c", words], capture_output=True, text=True)
    assert set(done.stdout.split()) == {"first", "second"}


def test_a_removal_that_can_not_be_whole_removes_nothing(as_user, folder: Path) -> None:
    before, run = names(folder), folder / "runs/second"
    places = {run: "000", run / "model": "555", run / "checkpoints": "000", run.parent: "555"}
    changes = [*places.items(), (run / ".lock", "444")]
    lines = [(f"chmod {mode} {place}", "runs remove second --yes", f"chmod 755 {place}") for place, mode in changes]
    for refused in as_user(*(line for each in lines for line in each)):
        message, hint = refused.error_lines
        assert refused.code == 2 and message.startswith("Error: Run 'second' can't be removed: ")
        assert hint.startswith("Hint: It is yours: chmod u+rwX ")
    assert names(folder) == before


def test_other_runs_are_removed_beside_one_that_may_not_be_read(as_user, folder: Path) -> None:
    (folder / "runs/first").chmod(0)
    removed, best = as_user("runs remove second --yes", "runs remove --keep-best 1 --yes")
    assert (removed.code, best.code) == (0, 0)
    assert not (folder / "runs/second").exists() and (folder / "runs/first").exists()


def test_a_lock_that_may_only_be_read_tells_whether_it_is_held(as_user, folder: Path) -> None:
    run = Artifacts(folder).run("second")
    write_json(run.record, {"status": "running", "started": "2026-01-01T10:00:00"})
    with lock(run.path, "training"):
        (run.path / ".lock").chmod(0o444)
        (held,) = as_user("runs list --json")
    (run.path / ".lock").chmod(0o444)  # which filelock may have made anew
    (left,) = as_user("runs list --json")
    assert [each.json["runs"][1]["status"] for each in (held, left)] == ["running", "killed"]
    assert not is_locked(run.path)


def test_a_comparison_that_has_no_page_is_shown(as_user, folder: Path) -> None:
    folder.chmod(0o555)
    shown, told = as_user("runs compare first second", "runs compare first second --json")
    assert (shown.code, told.code) == (0, 0) and "first" in shown.out
    assert "There is no page of this comparison" in shown.err and "Comparison page" not in shown.out
    assert told.json["page"] is None and told.json["warnings"]


@pytest.mark.slow
def test_what_can_not_be_written_is_refused_before_the_work(as_user, folder: Path, monkeypatch) -> None:
    write_text(folder.parent / "text.txt", "A whale is large. " * 400)
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    before = names(folder)
    lines = {
        "evaluate second --on text.txt": "--artifacts COPY",
        "export second --to hf": "--output DIR",
        "export second --to gguf": "--output DIR",
        "blend first second": "--output DIR",
        "prepare text.txt": "--artifacts DIR",
    }
    for line, done in zip(lines, as_user(*lines), strict=True):
        assert done.code == 2, (line, done)
        message, hint = done.error_lines
        assert message.endswith("can't be written: Permission denied.") and lines[line] in hint, (line, done)
        assert "scoring" not in done.err and "blending" not in done.err
    assert names(folder) == before


@pytest.mark.slow
def test_a_report_in_a_copy_of_a_folder_works_as_its_hint_says(as_user, folder: Path) -> None:
    write_text(folder.parent / "text.txt", "A whale is large. " * 400)
    shutil.copytree(folder, folder.parent / "copy")
    folder.chmod(0o555)
    (done,) = as_user("evaluate second --on text.txt --artifacts copy --json")
    assert done.code == 0 and Path(done.json["report"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["runs/second", "runs/second/model", "runs", ""])
def test_a_model_that_may_not_be_read_is_told_in_two_lines(as_user, folder: Path, place: str) -> None:
    write_text(folder.parent / "text.txt", "A whale is large. " * 400)
    (folder / place).chmod(0)
    for done in as_user("evaluate second --on text.txt", "generate hi", "export second", "blend first second"):
        message, hint = done.error_lines
        assert done.code in (2, 3, 4) and message.endswith("can't be read: Permission denied."), done
        assert hint.startswith("Hint: It is yours: chmod u+rwX ") and hint.endswith(f"artifacts/{place}".rstrip("/"))


@pytest.mark.slow
def test_a_tokenizer_that_may_not_be_read_is_not_said_to_be_damaged(as_user, folder: Path) -> None:
    write_text(folder.parent / "text.txt", "A whale is large. " * 400)
    file = folder / "runs/second/model/tokenizer.json"
    file.chmod(0)
    for done in as_user("generate hi", "evaluate second --on text.txt", f"prepare text.txt --tokenizer {file}"):
        message, hint = done.error_lines
        assert done.code in (2, 3) and message.endswith("model/tokenizer.json can't be read: Permission denied."), done
        assert hint.startswith("Hint: It is yours: chmod u+rwX ") and hint.endswith("model/tokenizer.json")


def test_the_check_leaves_nothing_and_takes_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
