"""Turns a signal into a save and a stop, or a save alone; a second Ctrl-C or SIGTERM stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.errors import Interrupted
from pretrain_cli.processes import lost_another

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
STOPS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has no SIGHUP
"""What asks a training to save and stop."""
WARNING: int | None = getattr(signal, "SIGUSR1", None)
"""What a scheduler sends ahead of its time limit, if it is told to; Windows has none."""
HANDLED = STOPS if WARNING is None else (*STOPS, WARNING)
"""All signals that a training answers."""
SAME_SECONDS = 0.25
"""A wrapper or launcher may pass on what the terminal has sent already: nobody presses Ctrl-C twice so fast."""


class StoppedAtOnce(KeyboardInterrupt):
    """Raised in the middle of anything; not an Exception, so that nothing on the way takes it for a failure."""


class StopRequests:
    """The first signal asks the loop to save and stop; the second, or one outside the loop, stops at once.

    A context manager: outside it, and in threads other than the main one, the process's own handlers stay. A SIGHUP
    that is ignored, as under nohup, stays ignored.

    Args:
        say: receives the line that answers the first signal.
        run: whose name the hint gives.
        warning_saves_only: SIGUSR1 asks for a save, and the training continues; otherwise it stops the training, too.

    Raises:
        Interrupted: at its end, where the training was stopped at once, or lost another process after a signal.
    """

    def __init__(
        self, say: Callable[[str], None], run: RunFolder | None = None, warning_saves_only: bool = False
    ) -> None:
        self._say, self._run, self._warning_saves_only = say, run, warning_saves_only
        self._before: dict[int, Any] = {}
        self._heard_at = 0.0
        self._saves_requested = self._saves_taken = 0
        self.requested: int | None = None
        self.agreed: bool | None = None
        self.in_loop = False

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, StoppedAtOnce):
            raise Interrupted("Stopped at once.", self._hint(), self.exit_code) from None
        if self.requested is not None and lost_another(error):  # a launcher ends the others when one has failed
            raise Interrupted("Stopped with the other processes.", self._hint(), self.exit_code) from error

    @property
    def heard(self) -> bool:
        """Whether to stop after this step: a signal came, on several processes to any of them."""
        return self.requested is not None if self.agreed is None else self.agreed

    def take_save(self) -> bool:
        """Whether this process was asked for a save since the last call."""
        taken, self._saves_taken = self._saves_taken, self._saves_requested
        return self._saves_taken > taken

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.requested or signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == WARNING and self._warning_saves_only:
            self._saves_requested += 1
            self._answer("SIGUSR1: this step is finished and saved, and training continues.")
            return
        again, self.requested = self.requested is not None, number
        now = time.monotonic()
        if again and now - self._heard_at < SAME_SECONDS:
            return
        self._heard_at = now
        if again or not self.in_loop:
            raise StoppedAtOnce
        self._answer("Stopping: this step is finished and saved first. Press again to stop at once.")

    def _answer(self, text: str) -> None:
        # From a thread: the one that was interrupted may be in the middle of a line, and hold the screen's locks.
        threading.Thread(target=self._say, args=(text,), daemon=True).start()

    def _hint(self) -> str:
        if self._run is None or not self._run.record.is_file():
            return "Training had not begun, so there is nothing to resume."
        return f"What was saved is kept; continue with: ptk train --resume {self._run.name}"
