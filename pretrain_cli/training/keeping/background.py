"""Copies a run's state into the CPU's memory, and writes it from there in a thread while training continues."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from pretrain_cli.memory import available_bytes, peak_resident_bytes, resident_bytes

WORTH_BYTES = 32_000_000
"""A smaller checkpoint is on the disk in a fraction of a second: no copy is made of it."""
STOP_WAIT_S = 5.0
"""How long a training that is stopped at once waits for the file that is being written."""

State = dict[str, Any]
Copy = Callable[[State], State]
"""Gives a state that later steps don't change, or, where training waits, the state itself."""


class GivenUp(Exception):
    """The training was stopped at once: the checkpoint on its way isn't wanted any more."""


def as_it_is(state: State) -> State:
    """The state itself: training waits until it is written."""
    return state


class HostCopy:
    """Copies tensors into the CPU's memory, always into the same: a run takes a checkpoint's bytes for it, once.

    Pinned on a GPU, so that the copies run at the bus's speed, all queued before the first is waited for.

    Args:
        device: where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        options = StagingOptions(
            use_pinned_memory=cuda, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=cuda
        )
        self._stager = DefaultStager(options)

    def __call__(self, state: State) -> State:
        copied = self._stager.stage(state)
        assert isinstance(copied, dict)  # no future, as it isn't asked for
        return copied

    def close(self) -> None:
        """Give the memory back."""
        self._stager.close()


def memory_lacking(copy_bytes: float) -> tuple[float, float] | None:
    """Bytes that the copies of this machine's processes take, and those that are free for them; None: they fit.

    What a step takes at its peak, and has given back when a checkpoint is due, is not free.

    Args:
        copy_bytes: of this process.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = copy_bytes * here
    free = available_bytes() - here * max(0, peak_resident_bytes() - resident_bytes())
    return (needed, max(0.0, free)) if needed > free else None


class Background:
    """Runs one piece of work at a time in a thread of its own; an error is raised where its end is waited for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether the work is done; None was begun: yes."""
        return self._thread is None or not self._thread.is_alive()

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; the one before has ended."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end of the work, at most so long, and raise what it failed with."""
        if self._thread is not None:
            self._thread.join(seconds)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """Let the work end at the next file."""
        self._stopped = True

    def check(self) -> None:
        """Raise `GivenUp` where `stop` was called."""
        if self._stopped:
            raise GivenUp
