"""Talks to a process of its own that works on what a stranger wrote, with a bound to its time and memory.

A question and an answer are each a line of JSON and the bytes that its ``size`` counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from pretrain_cli.processes import end_with_parent, safe_path

START_S = 300.0
MOST_LINE_BYTES = 1_000_000_000
Message = tuple[dict[str, Any], bytes]
Reply = Callable[..., None]


class BoundedProcess:
    """A process that runs ``module``. It ends with this one, or when nobody needs it any more."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **safe_path()},
            start_new_session=True,  # a Ctrl-C ends an answer, not the process
        )
        self.close = weakref.finalize(self, _end, self._process)

    def ask(self, question: Mapping[str, Any], content: bytes = b"", *, patience_s: float) -> Message | None:
        """What it answers; None where it ended before, or was ended after ``patience_s`` seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        clock = threading.Timer(patience_s, self._process.kill)
        clock.daemon = True
        clock.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and won't answer
                _write(self._process.stdin, question, content)
            return _read(self._process.stdout)
        finally:
            clock.cancel()

    def ended_by(self) -> int:
        """The signal that ended it; 0 where it ended by itself."""
        return max(0, -self._process.wait())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()


def _write(stream: IO[bytes], values: Mapping[str, Any], content: bytes) -> None:
    stream.write(json.dumps({**values, "size": len(content)}).encode() + b"\n")
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes]) -> Message | None:
    """The next question, or answer; None where the other process has ended."""
    line = stream.readline(MOST_LINE_BYTES)
    if not line.endswith(b"\n"):
        return None
    values = json.loads(line)
    content = stream.read(values["size"])
    return (values, content) if len(content) == values["size"] else None


def questions() -> Iterator[tuple[dict[str, Any], bytes, Reply]]:
    """In the process itself: each question, and what answers it. What libraries print goes nowhere."""
    end_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while (question := _read(sys.stdin.buffer)) is not None:
        yield (*question, lambda values, content=b"": _write(answers, values, content))


def bound_memory(most_bytes: int) -> None:
    """Take no more than ``most_bytes`` beyond what this process has. Windows bounds none, only the time."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # a lower bound is set
        import resource

        import psutil

        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + most_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def bound_time(seconds: int) -> None:
    """Let the system end this process after ``seconds`` more of a core's time, without a core dump."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # as above
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        most = int(time.process_time()) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
