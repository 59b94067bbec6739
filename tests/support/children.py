"""Trainings in processes of their own that a test can kill: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts

READY = "everything is imported\n"


class Nursery:
    """Starts one training after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = 0

    def start(self, artifacts: Artifacts, settings: dict[str, Any], **arguments: Any) -> None:
        """Begin ``train(small(**settings), artifacts, **arguments)``; its process is ``pid``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"root": str(artifacts.root), "settings": settings, "arguments": arguments}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())

    def running(self) -> bool:
        """Whether the training hasn't ended yet."""
        return Path(f"/proc/{self.pid}/status").is_file() and "\nState:\tZ" not in self._status()

    def kill(self) -> None:
        """SIGKILL: no handler, no clean-up."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code; -9 for a killed one."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def _status(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return "\nState:\tZ"


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A process that forks trainings on request: a start costs no import."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.children"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == READY
            yield Nursery(process)
        finally:
            process.kill()


def serve() -> None:
    """Fork a training for each line of stdin; print its pid, then its exit code."""
    from pretrain_cli.training.run import train
    from tests.support.runs import small

    sys.stdout.write(READY)
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                train(small(**order["settings"]), Artifacts(Path(order["root"])), **order["arguments"])
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _say(pid)
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
