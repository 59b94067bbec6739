"""How are training loops timed fairly on a machine whose speed changes? They take turns, a few steps each."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable


class Turns:
    """Runs loops in threads of one process, one at a time; each calls ``step(name)`` at the end of its steps.

    Args:
        loops: name → loop; it trains ``steps`` steps and returns.
        steps: of each loop.
        steps_per_turn: so many before the next loop goes on.
        warmup: steps of each loop that aren't counted.
    """

    def __init__(
        self, loops: dict[str, Callable[[], None]], steps: int, steps_per_turn: int = 1, warmup: int = 2
    ) -> None:
        self._loops, self._steps, self._per_turn, self._warmup = loops, steps, steps_per_turn, warmup
        self._names = list(loops)
        self._alive = set(loops)
        self._go = {name: threading.Semaphore(0) for name in loops}
        self._done = dict.fromkeys(loops, 0)
        self._began = 0.0
        self._errors: list[BaseException] = []
        self._seconds: dict[str, list[float]] = {name: [] for name in loops}

    def run(self) -> dict[str, float]:
        """Name → median seconds of a step."""
        threads = [threading.Thread(target=self._thread, args=(name,), daemon=True) for name in self._names]
        for thread in threads:
            thread.start()
        self._go[self._names[0]].release()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return {name: statistics.median(times) for name, times in self._seconds.items()}

    def step(self, name: str) -> None:
        """Loop ``name`` has done a step; returns when it may do the next one."""
        self._done[name] += 1
        done = self._done[name]
        if done % self._per_turn or done >= self._steps:
            return
        if done > self._warmup:
            self._seconds[name].append((time.perf_counter() - self._began) / self._per_turn)
        self._pass_on(name)
        self._wait(name)

    def _thread(self, name: str) -> None:
        self._wait(name)
        try:
            self._loops[name]()
        except BaseException as error:
            self._errors.append(error)
        self._alive.remove(name)
        self._pass_on(name)

    def _wait(self, name: str) -> None:
        self._go[name].acquire()
        self._began = time.perf_counter()

    def _pass_on(self, name: str) -> None:
        place = self._names.index(name) + 1
        following = [other for other in self._names[place:] + self._names[:place] if other in self._alive]
        if following:
            self._go[following[0]].release()
