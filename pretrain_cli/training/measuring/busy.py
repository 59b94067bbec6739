"""Notices when another process takes the cores in the middle of a run."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

import psutil

SLOWER = 2.5
"""Two OpenMP threads fall to a fraction of their speed when another process holds one of two cores."""
NEWEST, USUAL = 5, 20
LEAST_CORES = 0.5


class BusyWatch:
    """Says once when steps have become slow and other processes use the cores.

    Args:
        threads: that torch computes with; with one there is nothing to advise.
        warn: receives the line.
        others: cores that other processes have used since it was last asked.
    """

    def __init__(self, threads: int, warn: Callable[[str], None], others: Callable[[], float] | None = None) -> None:
        self.threads, self._warn = threads, warn
        self._others = others or OtherProcesses().cores
        self._first: list[float] = []
        self._newest: deque[float] = deque(maxlen=NEWEST)
        self._said = False

    def look(self, seconds: float) -> None:
        """A step took ``seconds``."""
        if self._said or self.threads < 2:
            return
        if len(self._first) < USUAL:
            self._first.append(seconds)
            return
        self._newest.append(seconds)
        usual = statistics.median(self._first)
        if len(self._newest) < NEWEST or min(self._newest) < SLOWER * usual:
            return
        self._newest.clear()
        cores = self._others()
        if cores < LEAST_CORES:
            return
        self._said = True
        self._warn(
            f"Steps take {seconds / usual:.1f} times as long as at first, and other processes use {cores:.1f} cores. "
            "If that lasts, press Ctrl-C and continue with --resume --set train.threads=1."
        )


class OtherProcesses:
    """Counts what others use of the CPU between two questions."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        psutil.cpu_percent()
        self._process.cpu_percent()

    def cores(self) -> float:
        """Cores in use since the last question, less this process's own."""
        everything = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
        return max(0.0, float(everything - self._process.cpu_percent() / 100))
