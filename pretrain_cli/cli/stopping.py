"""Hears Ctrl-C, SIGTERM and SIGHUP for the commands that don't answer them themselves, as training does."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
ENDS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has no SIGHUP
"""What ends a process that doesn't answer it."""
GRACE_S = 5.0
"""A process that is busy in a library, or still cleans up, ends this long after SIGTERM or SIGHUP."""
AFTER_FINALIZER_S = 0.02
ECHO_S = 5.0
"""An error this soon after a signal in an import is that signal: libraries turn it into their own errors."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came; not an Exception, so that nothing on the way takes it for a failure."""


class Stopping:
    """What has asked this process to stop. In processes that are forked from it, SIGTERM and SIGHUP just end them."""

    def __init__(self) -> None:
        self._number: int = signal.SIGINT
        self._in_import_at = -math.inf
        self._listens = self._ends = self._told = self._again = False
        self._held = threading.local()
        self._tell_other = sys.unraisablehook

    def listen(self) -> None:
        """Raise what a signal asks for in the main thread. A signal that is ignored, or answered, stays so."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        for number in ENDS:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._end)
        if not self._listens:
            self._tell_other, sys.unraisablehook = sys.unraisablehook, self._unraisable
        if not self._listens and hasattr(signal, "pthread_sigmask"):
            self._watch()
            os.register_at_fork(before=self._hold, after_in_parent=self._free, after_in_child=self._let_go)
        self._listens = True

    @property
    def broke_an_import(self) -> bool:
        """Whether a signal came in an import just now."""
        return time.monotonic() - self._in_import_at < ECHO_S

    def tell(self) -> tuple[str, int]:
        """What asked for it, for people, and the exit status that a shell expects."""
        self._told = True
        name = "Ctrl-C" if self._number == signal.SIGINT else signal.Signals(self._number).name
        return f"Stopped by {name}.", 128 + self._number

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._note_import(frame)
        signal.default_int_handler(number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._number != signal.SIGINT and not self._again:  # a launcher may pass on what the whole group has got
            return
        self._number, self._again = number, False
        self._note_import(frame)
        self._end_in_time(number)
        raise Terminated

    def _unraisable(self, met: sys.UnraisableHookArgs) -> None:
        """A finalizer, or a weak reference's callback, swallows what a signal raises in it: raise it again after it."""
        if type(met.exc_value) not in (KeyboardInterrupt, Terminated):
            self._tell_other(met)
            return

        def again() -> None:
            time.sleep(AFTER_FINALIZER_S)
            self._again = True
            main = threading.main_thread().ident
            if main is not None and hasattr(signal, "pthread_kill"):  # wakes it where it waits in a library
                signal.pthread_kill(main, self._number)
            else:
                signal.raise_signal(self._number)

        threading.Thread(target=again, name="again", daemon=True).start()

    def _note_import(self, frame: FrameType | None) -> None:
        within: FrameType | None = frame
        while within is not None and "importlib._bootstrap" not in within.f_code.co_filename:
            within = within.f_back
        self._in_import_at = time.monotonic() if within is not None else -math.inf

    def _watch(self) -> None:
        """Learn of a signal as it comes: `_end` is called once the main thread is back from a library."""
        heard, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)

        def look() -> None:
            while numbers := os.read(heard, 64):
                for number in numbers:
                    if signal.getsignal(number) == self._end:
                        self._end_in_time(number)

        threading.Thread(target=look, name="signals", daemon=True).start()

    def _end_in_time(self, number: int) -> None:
        if self._ends:
            return
        self._ends = True

        def end() -> None:
            time.sleep(GRACE_S)
            with contextlib.suppress(OSError):  # nobody reads it
                if not self._told and select.select([], [2], [], 0)[1]:
                    os.write(2, f"Stopped by {signal.Signals(number).name}.\n".encode())
            os._exit(128 + number)

        threading.Thread(target=end, name="end", daemon=True).start()

    def _hold(self) -> None:
        """A forked process has this one's handlers and pipe, and gets no signal until it has let go of them."""
        self._held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)

    def _free(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held.mask)

    def _let_go(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in ENDS:
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        self._free()


STOPPING = Stopping()
"""Of this process."""
