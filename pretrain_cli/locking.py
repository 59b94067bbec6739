"""Locks a folder, so that one process at a time writes to it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.errors import UsageError
from pretrain_cli.refusals import is_denied, writing_to
from pretrain_cli.storage import open_own, read_json

if TYPE_CHECKING:
    import filelock

ORPHAN_S = 8.0
"""The loader workers of a killed process may hold its lock this long."""


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
