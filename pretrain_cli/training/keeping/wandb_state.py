"""Tells from wandb's own log whether it reaches its server."""

from __future__ import annotations

import os
from pathlib import Path

LOG = Path("logs") / "debug-internal.log"
TAIL_BYTES = 16_384
SENT, TRIES_AGAIN = (b'"filestream: request sent","status":"200', b"retrying")


def connection(folder: Path) -> str:
    """ "synced", "retrying", or "" where the log in the run's sync folder (wandb 0.31) says neither.

    Its network status has one reader, which is wandb itself.
    """
    try:
        with open(folder / LOG, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            tail = file.read()
    except OSError:
        return ""
    sent, again = tail.rfind(SENT), tail.rfind(TRIES_AGAIN)
    return "" if sent == again else "synced" if sent > again else "retrying"
