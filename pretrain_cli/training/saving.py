"""How does a run save, and go on when it can't?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pretrain_cli.training.checkpoints import rotate, staged
from pretrain_cli.training.clock import WRITE_BYTES_PER_SECOND
from pretrain_cli.training.job import Job
from pretrain_cli.training.processes import wait_for_all


class Saver:
    """Stages, fsyncs, verifies and renames checkpoints; a full disk pauses saving and never ends the run.

    Args:
        job: whose state goes into a checkpoint.
        write: puts weights, optimizer and the rest into a folder.
        checkpoint_bytes: what a checkpoint will take.
    """

    def __init__(self, job: Job, write: Callable[[Path], None], checkpoint_bytes: int) -> None:
        self.job, self.checkpoint_bytes = job, checkpoint_bytes
        self._write = write
        self._saved_step = job.state.step
        self._seconds = 0.0
        self._state = ""

    def estimate_s(self) -> float:
        """Seconds for the last checkpoint and the model."""
        if self._seconds:
            return 2 * self._seconds
        return 1.0 + 2 * self.checkpoint_bytes / WRITE_BYTES_PER_SECOND

    def save(self) -> None:
        """Save this step, unless it is saved already."""
        job, state = self.job, self.job.state
        if self._saved_step == state.step:
            return
        began = time.monotonic()
        if job.rank == 0 and self._disk_has_room():
            try:
                job.metrics.sync()
                with staged(job.run, state.step) as folder:
                    self._write(folder)
                rotate(job.run, job.config.train.keep, state.best_step, job.progress.warn)
                self._saved_step = state.step
                self._say_state("")
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError without errno
                self._failed(error)
            except Exception as error:  # safetensors has an error type of its own
                if type(error).__name__ != "SafetensorError":
                    raise
                self._failed(error)
        wait_for_all()
        self._seconds = time.monotonic() - began

    def _say_state(self, text: str) -> None:
        if text != self._state:
            self._state = text
            self.job.progress.status("saving", text or "works again")

    def _disk_has_room(self) -> bool:
        needed = 1.1 * self.checkpoint_bytes
        free = shutil.disk_usage(self.job.run.path).free
        if free >= needed:
            return True
        self._failed(OSError(28, f"{free / 1e6:.0f} MB are free, a checkpoint takes {needed / 1e6:.0f} MB"))
        return False

    def _failed(self, error: BaseException) -> None:
        steps = self.job.run.checkpoint_steps()
        last = (
            f"the last good checkpoint is {self.job.run.checkpoint(steps[-1]).name}" if steps else "there is none yet"
        )
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        self._say_state("PAUSED, the disk is full" if "space" in reason or "MB" in reason else "FAILED")
        self.job.progress.warn(
            f"NO CHECKPOINT at step {self.job.state.step}: {reason}. Training goes on; {last}. Free some disk space."
        )
