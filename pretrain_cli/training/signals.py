"""What does a Ctrl-C or a scheduler's SIGTERM do to a training?"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from pretrain_cli.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequests:
    """The first signal asks the loop to save and stop; the second, or one outside the loop, stops at once.

    A context manager: outside it, and in threads other than the main one, the process's own handlers stay.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: dict[int, Any] = {}
        self.requested: int | None = None
        self.agreed: bool | None = None
        self.in_loop = False

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def heard(self) -> bool:
        """Whether to stop after this step: a signal came, on several processes to any of them."""
        return self.requested is not None if self.agreed is None else self.agreed

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.requested or signal.SIGINT, 130)  # type: ignore[call-overload, no-any-return]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.requested is not None
        self.requested = number
        if again or not self.in_loop:
            raise Interrupted(
                "Stopped at once.", "What was saved is kept; go on with: ptk train --resume", self.exit_code
            )
        self._say("Stopping: this step is finished and saved first. Once more stops at once.")
