"""Times training loops fairly on a machine whose speed changes. They take turns, a few steps each.

Each loop is a process of its own, as it is in use: its own threads, allocator and random state.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any


class Turns:
    """Starts commands that train, lets one at a time go on, and keeps how long their steps took.

    Args:
        loops: name → command; it makes a `Loop` of its last argument.
        steps: of each loop.
        steps_per_turn: so many before the next loop goes on.
        warmup: steps of each loop that aren't counted.
    """

    def __init__(self, loops: dict[str, list[str]], steps: int, steps_per_turn: int = 1, warmup: int = 2) -> None:
        self._steps, self._per_turn, self._warmup = steps, steps_per_turn, warmup
        self._loops = {name: _Child(command) for name, command in loops.items()}
        self.results: dict[str, Any] = {}

    def run(self) -> dict[str, float]:
        """Name → median seconds of a step; ``results`` has what each loop gave at its end."""
        seconds: dict[str, list[float]] = {name: [] for name in self._loops}
        for child in self._loops.values():
            child.hear()  # all imported: from here on one works at a time
        for turn in range(1, self._steps // self._per_turn + 1):
            for name, child in self._loops.items():
                took = float(child.ask(self._per_turn))
                if (turn - 1) * self._per_turn >= self._warmup:
                    seconds[name].append(took / self._per_turn)
        for name, child in self._loops.items():
            self.results[name] = json.loads(child.ask(self._steps))
            child.end()
        return {name: statistics.median(times) for name, times in seconds.items()}


class _Child:
    """One loop's process, and the two pipes to it."""

    def __init__(self, command: list[str]) -> None:
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [*command, str(writing)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(writing,), text=True
        )
        os.close(writing)
        self._lines = os.fdopen(reading)

    def ask(self, steps: int) -> str:
        """Let it do ``steps`` steps; what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        line = self._lines.readline()
        if not line:
            raise RuntimeError(f"a loop ended with exit code {self._process.wait()}")
        return line

    def end(self) -> None:
        self._process.communicate()


class Loop:
    """The loop's own side.

    Args:
        pipe: the number that the command's last argument says.
    """

    def __init__(self, pipe: str) -> None:
        self._pipe = os.fdopen(int(pipe), "w")
        self._left, self._began = 0, 0.0

    def start(self) -> None:
        """Everything is imported; returns when it may begin."""
        self._say("ready")
        self._wait()

    def step(self) -> None:
        """A step is done; returns when it may do the next one."""
        self._left -= 1
        if not self._left:
            self._say(str(time.perf_counter() - self._began))
            self._wait()

    def end(self, result: Any) -> None:
        """The loop is done."""
        self._say(json.dumps(result))

    def _wait(self) -> None:
        self._left = int(sys.stdin.readline() or 0)
        self._began = time.perf_counter()

    def _say(self, line: str) -> None:
        self._pipe.write(line + "\n")
        self._pipe.flush()
