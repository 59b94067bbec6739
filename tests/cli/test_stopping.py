"""SIGTERM and SIGHUP, sent to commands that don't train: two lines, the exit code, and no process that stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny import make_model

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows ends a process otherwise")

KEPT = "Everything that was complete is kept. Run the command again to continue.\n"
STUCK = """import ctypes
lock, take = (ctypes.c_long * 16)(), ctypes.CDLL(None).pthread_mutex_lock
take(lock)
print('ready', flush=True)
take(lock)
"""
SWALLOWED = "try: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(60)\n"
FINALIZES = """import weakref
class Held: pass
def finalize(reference):
    print('ready', flush=True)
    time.sleep(60)
held = Held()
reference = weakref.ref(held, finalize)
del held
time.sleep(60)
"""
CLEANS_UP = "try: time.sleep(60)\nfinally: time.sleep(60)\n"


def started(folder: Path, work: str, *, handlers: object = None, grace_s: float = 1.0) -> subprocess.Popen[str]:
    """`ptk` whose command does ``work``, begun."""
    ready = "" if "ready" in work else "print('ready', flush=True)\n"
    (folder / "work.py").write_text(f"import os, signal, time\n{ready}{work}")
    (folder / "begun.py").write_text(
        "from pretrain_cli.cli import app, stopping\n"
        f"stopping.GRACE_S = {grace_s}\n"
        "def work(**given): exec(compile(open('work.py').read(), 'work.py', 'exec'), {})\n"
        "app.make_app = lambda: work\n"
        "app.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "begun"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=handlers,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_a_signal_is_said_in_two_lines(empty: Path, number: signal.Signals, name: str) -> None:
    process = started(empty, "time.sleep(60)")
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` sends it: to its child, and to the group
    assert process.communicate(timeout=20) == ("", f"Stopped by {name}.\n{KEPT}")
    assert process.returncode == 128 + number


@pytest.mark.parametrize("work", [STUCK, SWALLOWED, CLEANS_UP])
def test_a_process_that_is_stuck_in_a_library_ends_after_a_grace(empty: Path, work: str) -> None:
    process = started(empty, work)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.communicate(timeout=20) == ("", "Stopped by SIGTERM.\n")
    assert process.returncode == 143 and time.monotonic() - began > 0.9


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_that_a_finalizer_swallows_ends_the_command_all_the_same(
    empty: Path, number: signal.Signals, name: str
) -> None:
    process = started(empty, FINALIZES, handlers=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", f"Stopped by {name}.\n{KEPT}")
    assert process.returncode == 128 + number


def test_a_signal_that_is_ignored_stays_ignored(empty: Path) -> None:
    process = started(empty, "time.sleep(2)", handlers=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # nohup
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 0


def test_a_forked_process_ends_alone_and_silently(empty: Path) -> None:
    forks = (
        "child = os.fork()\n"
        "if not child: time.sleep(60)\n"
        "os.kill(child, signal.SIGTERM); print(os.waitpid(child, 0)[1], flush=True); time.sleep(2)\n"
    )
    process = started(empty, forks)
    assert process.communicate(timeout=20) == (f"{int(signal.SIGTERM)}\n", "") and process.returncode == 0


@pytest.mark.parametrize("error", ["RuntimeError", "OSError"])
def test_a_signal_in_an_import_stays_one_whatever_the_library_makes_of_it(empty: Path, error: str) -> None:
    (empty / "library.py").write_text(
        f"import time\nprint('importing', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: raise {error}\n"
    )
    process = started(empty, "import library")
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", f"Stopped by SIGTERM.\n{KEPT}") and process.returncode == 143


def test_a_signal_before_the_command_line_is_loaded_is_no_traceback(empty: Path) -> None:
    program = (
        "import os, signal, sys, time; from pretrain_cli.__main__ import main\n"
        "class Late:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'pretrain_cli.cli.app': os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "sys.meta_path.insert(0, Late()); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (143, "Stopped by SIGTERM.\nNothing had started yet.\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_that_streams(empty: Path, number: signal.Signals) -> None:
    tiny = make_model(empty / "tiny", max_position_embeddings=200_000)
    line = [sys.executable, "-m", "pretrain_cli", "generate", "Call me", "--model", str(tiny), "--greedy"]
    process = subprocess.Popen([*line, "--max-tokens", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.read(20)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number and (first + out).endswith(b"\n")
    assert err.decode() == f"Stopped by {number.name}.\n{KEPT}"
