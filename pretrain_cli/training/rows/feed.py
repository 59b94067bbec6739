"""Feeds ready batches to the training step, whatever happens to the loader's workers."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pretrain_cli.errors import first_line
from pretrain_cli.training.processes.signals import HANDLED
from pretrain_cli.training.rows.order import RowOrder, continued

Batch = dict[str, torch.Tensor]
"""Tensors of a micro-batch by name, int64 [B, L] each."""
PR_SET_PDEATHSIG = 1
HANG_SECONDS = 120
"""A worker that gives no batch for so long is taken for dead."""


def begin_worker(_worker: int) -> None:
    """A worker ignores the signals that a training answers, which go to the whole group, and dies with its parent.

    The parent stops its workers itself, after saving. Where it is killed, Linux ends them at once; elsewhere they
    notice within 5 s. Until then they hold the run's lock.
    """
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def make_loader(dataset: Dataset[Batch], order: RowOrder, workers: int, pin_memory: bool) -> DataLoader[Batch]:
    """A loader of whole micro-batches; its own generator, so that it never draws from the training's."""
    with warnings.catch_warnings():
        # The user chose this number, and waiting workers cost no core.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        return DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=_same,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=begin_worker if workers else None,
            timeout=HANG_SECONDS if workers else 0,
            generator=torch.Generator().manual_seed(order.seed),
        )


def _same(batch: Any) -> Any:
    return batch


class _Waiting:
    """Whether the main thread waits for a batch now.

    torch raises a worker's death wherever the main thread is at that moment, in the middle of a step or a validation
    too, where nothing could continue. Here it does so only while a batch is waited for; `Feed` finds the others then.
    """

    def __init__(self) -> None:
        self.now = False
        self._ours: Any = None

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        self.now = True
        try:
            yield
        finally:
            self.now = False

    def restrain_torch(self) -> None:
        """Stand before the handler that torch installs with a process's first workers."""
        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        theirs = signal.getsignal(signal.SIGCHLD)
        if theirs is self._ours or not callable(theirs):
            return

        def ours(number: int, frame: FrameType | None) -> None:
            if self.now:
                theirs(number, frame)

        self._ours = ours
        signal.signal(signal.SIGCHLD, ours)


_WAITING = _Waiting()


class Feed:
    """Batches in order; a worker that dies or hangs, or can't start, costs a warning and the workers."""

    def __init__(
        self, dataset: Dataset[Batch], order: RowOrder, workers: int, pin_memory: bool, warn: Callable[[str], None]
    ) -> None:
        self.dataset, self.order, self.workers = dataset, order, workers
        self._pin_memory, self._warn = pin_memory, warn
        self._taken = order.start
        self._batches: Iterator[Batch] | None = None

    def take(self, count: int) -> list[Batch]:
        """The next ``count`` micro-batches."""
        return [self._next() for _ in range(count)]

    def close(self) -> None:
        """Let the workers go."""
        self._batches = None

    def _next(self) -> Batch:
        try:
            if self._batches is None:
                self._batches = self._open()
            with _WAITING.here():
                self._look_after_workers()
                batch = next(self._batches)
        except (RuntimeError, OSError, EOFError) as error:
            if not self.workers:
                raise
            self._warn(f"The loader's workers failed ({first_line(error)}); batches are now made without workers.")
            self.workers = 0
            self._kill_workers()
            self._batches = self._open()
            batch = next(self._batches)
        self._taken += 1
        return batch

    def _look_after_workers(self) -> None:
        for process in getattr(self._batches, "_workers", ()):
            if not process.is_alive():
                raise RuntimeError(f"worker {process.pid} ended with exit code {process.exitcode}")

    def _kill_workers(self) -> None:
        # They ignore SIGTERM; a hanging one would hold up the end of the run.
        for process in getattr(self._batches, "_workers", ()):
            process.kill()

    def _open(self) -> Iterator[Batch]:
        loader = make_loader(self.dataset, continued(self.order, self._taken), self.workers, self._pin_memory)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            batches = iter(loader)
        if self.workers:
            _WAITING.restrain_torch()
        return batches
