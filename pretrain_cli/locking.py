"""Locks a folder, so that one process at a time writes to it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.errors import UsageError
from pretrain_cli.refusals import is_denied, writing_to
from pretrain_cli.storage import open_own, read_json

if TYPE_CHECKING:
    import filelock

ORPHAN_S = 8.0
"""The loader workers of a killed process may hold its lock this long."""
TURN_S, LOOK_S = 600.0, 0.05
"""The longest wait for a turn, and how often it is looked for."""


@contextlib.contextmanager
def lock(folder: Path, what: str) -> Iterator[None]:
    """Lock ``folder`` for this process. The system frees the lock however the process ends.

    Raises:
        UsageError: another process holds the lock; the message names it.
    """
    import filelock

    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        holder = folder / ".lock.json"
        guard = filelock.FileLock(folder / ".lock")
        try:
            guard.acquire(timeout=0)
        except filelock.Timeout as error:
            pid = read_json(holder).get("pid", "unknown") if holder.is_file() else "unknown"
            if not (isinstance(pid, int) and _outlived(guard, pid)):
                raise UsageError(
                    f"Another process (pid {pid}) is already {what} in {folder}.",
                    "Wait until it ends, stop it, or choose another folder.",
                ) from error
        try:
            holder.unlink(missing_ok=True)  # of a killed process, or a link to somebody's file
            with open_own(holder, "w") as file:
                file.write(json.dumps({"pid": os.getpid()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            guard.release()


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait for other processes that are in such a block of ``folder``. It gets no file: the folder itself is locked.

    Where the system locks no folder, as Windows and some network disks, nothing is waited for.

    Raises:
        UsageError: another one isn't done after ``TURN_S``.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        latest = time.monotonic() + TURN_S
        while not _taken(lambda: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            if time.monotonic() > latest:
                raise UsageError(
                    f"Another process has been writing to {folder} for {TURN_S:.0f} s.",
                    "Wait until it ends, stop it, or choose another folder.",
                )
            time.sleep(LOOK_S)
        yield
    finally:
        os.close(handle)


def _taken(take: Callable[[], None]) -> bool:
    try:
        take()
    except BlockingIOError:
        return False
    except OSError:  # this file system has no such locks
        return True
    return True


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of ``folder`` now, as far as this user may find out."""
    try:
        with kept_unlocked(folder) as kept:
            return not kept
    except OSError as error:
        if not is_denied(error):
            raise
        return _seems_locked(folder)


def _seems_locked(folder: Path) -> bool:
    """The same of a lock that this user may not write: a shared lock tells; else, whether its holder is named."""
    try:
        import fcntl

        with open(folder / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return os.path.lexists(folder / ".lock.json")


@contextlib.contextmanager
def kept_unlocked(folder: Path) -> Iterator[bool]:
    """Whether no other process holds the lock of ``folder``; none can take it before the block ends, then.

    A folder that was never locked stays without a lock.
    """
    import filelock

    file = folder / ".lock"
    if not file.is_file():
        yield True
        return
    guard = filelock.FileLock(file)
    try:
        guard.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        guard.release()


def _outlived(guard: filelock.BaseFileLock, pid: int) -> bool:
    """Take over the lock of a killed process: its loader workers hold it until they notice, for up to 5 s."""
    import filelock
    import psutil

    if psutil.pid_exists(pid):
        return False
    try:
        guard.acquire(timeout=ORPHAN_S)
        return True
    except filelock.Timeout:
        return False
