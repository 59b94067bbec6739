"""Runs a long call of a library so that Ctrl-C is heard while it lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

LOOK_S = 0.05
Result = TypeVar("Result")


class Stopped(Exception):
    """The work was told to end: other work has failed, or the user has stopped the command."""


def interruptible(work: Callable[[], Result], stop: threading.Event | None = None) -> Result:
    """What ``work`` returns, done in a thread that dies with the process: the interpreter looks at signals only between
    two calls of a library, and one call may last for seconds.

    Raises:
        Stopped: ``stop`` was set before the end; the work's result is lost.
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again where it is waited for
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_S)
        if stop is not None and stop.is_set() and thread.is_alive():
            raise Stopped
    if failures:
        raise failures[0]
    return results[0]
