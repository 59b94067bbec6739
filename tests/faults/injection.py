"""Runs ptk commands in forked processes whose calls to the system are counted, and one of which fails."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.prefork import import_everything

SOURCE = Path(__file__).with_name("shim.c")
SHIM = "PTK_FAULT_SHIM"
"""The variable that says where the shim is, in a process that it is loaded in."""
ROOT = Path(__file__).parents[2]
LONGEST_S = 180
"""A command that takes longer hangs: undisturbed, it takes two seconds."""
ACTIONS = {"ENOSPC": 1, "EIO": 1, "short": 2, "kill": 3, "power": 3}


@dataclass(frozen=True)
class Fault:
    """What happens to a call.

    Attributes:
        kind: "ENOSPC" or "EIO", which the call fails with; "short", where half is written; "kill" (SIGKILL, and of a
            write half is done); or "power", a kill after which all is lost that no fsync has put on the disk.
        at: the number of the call, from 1.
        lasting: each later call that takes space fails as well, as on a full disk.
    """

    kind: str
    at: int
    lasting: bool = False

    @property
    def name(self) -> str:
        return "ENOSPC from here on" if self.lasting else "power failure" if self.kind == "power" else self.kind


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: a signal), what it said, and how many calls failed."""

    status: int
    out: str
    error: str
    reached: int
    seconds: float


def compiler() -> str | None:
    """A C compiler, where a library can be loaded before others."""
    return (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")) if sys.platform == "linux" else None


def compiled(folder: Path) -> Path:
    """The shim, compiled into ``folder``."""
    program, library = compiler(), folder / "shim.so"
    assert program is not None
    subprocess.run(
        [program, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SOURCE), "-ldl"],
        check=True,
    )
    return library


def environment(shim: Path) -> dict[str, str]:
    """Of a Python process in which commands can be disturbed."""
    own = {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1", SHIM: str(shim)}


def import_all_but_drawing() -> None:
    """Import what commands do. A picture is written as always, but nothing is drawn: a third of a command's time."""
    import_everything()
    import matplotlib.figure

    matplotlib.figure.Figure.draw = lambda *_: None


@contextlib.contextmanager
def in_a_disturbed_process(module: str) -> Iterator[Path]:
    """Run the block, with an empty folder, in a process that has imported everything and can be disturbed.

    The shim is loaded when a process starts: without it, this one runs ``module`` again with it, and ends.
    """
    with tempfile.TemporaryDirectory(prefix="ptk-faults-") as name:
        work = Path(name).resolve()
        if SHIM not in os.environ:
            if compiler() is None:
                sys.exit("This needs Linux and a C compiler.")
            command = [sys.executable, "-m", module, *sys.argv[1:]]
            sys.exit(subprocess.run(command, env=environment(compiled(work))).returncode)
        os.chdir(ROOT)
        import_all_but_drawing()
        yield work


def run_forked(
    words: Sequence[str], folder: Path, scratch: Path, fault: Fault | None = None, log: Path | None = None
) -> Ended:
    """Run ``ptk`` with ``words`` in a fork of this process; ``fault`` hits it in its calls about ``folder``."""
    out, error, reached = scratch / "out", scratch / "error", scratch / "reached"
    reached.unlink(missing_ok=True)
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            signal.alarm(LONGEST_S)
            for path, descriptor in ((out, 1), (error, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
            status = _run(words, folder, fault, log, reached)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    hits = int(reached.read_text()) if reached.is_file() else int(status == -signal.SIGKILL)
    seconds = time.monotonic() - began
    return Ended(status, out.read_text("utf-8", "replace"), error.read_text("utf-8", "replace"), hits, seconds)


def _run(words: Sequence[str], folder: Path, fault: Fault | None, log: Path | None, reached: Path) -> int:
    from pretrain_cli.cli.app import run

    sys.argv = ["ptk", *words]
    shim = ctypes.CDLL(os.environ[SHIM])
    action = ACTIONS[fault.kind] if fault else 0
    code = getattr(errno, fault.kind, 0) if fault else 0
    shim.fault_arm(
        os.fsencode(folder), ctypes.c_long(fault.at if fault else 0), action, code,
        int(fault.lasting if fault else False), os.fsencode(log or ""),
    )  # fmt: skip
    try:
        return run(list(words))
    finally:
        hits = shim.fault_reached()
        shim.fault_disarm()
        reached.write_text(str(hits))
