"""Decides whether there is time and disk space for a checkpoint, and saves it; a full disk never ends the run."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pretrain_cli.errors import PtkError, first_line
from pretrain_cli.processes import lost_another
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.checkpoints import keep_model_only, rotate, staged, whole_steps
from pretrain_cli.training.measuring.forecast import save_seconds
from pretrain_cli.training.processes.agreement import agree, same, totals


class Saver:
    """Stages, fsyncs, verifies and renames checkpoints; a full disk pauses saving and never ends the run.

    Args:
        attempt: whose state goes into a checkpoint.
        write: puts weights, optimizer and the rest into a folder.
        checkpoint_bytes: what a checkpoint will take.
    """

    def __init__(self, attempt: Attempt, write: Callable[[Path], None], checkpoint_bytes: int) -> None:
        self.attempt, self.checkpoint_bytes = attempt, checkpoint_bytes
        self._write = write
        self._saved_step = attempt.state.step
        self._seconds = 0.0  # of the last save
        self._state = ""

    def estimate_s(self) -> float:
        """Seconds for the last checkpoint and the model."""
        return 2 * (self._seconds or save_seconds(self.checkpoint_bytes))

    def save(self, model_only: bool = False) -> None:
        """Save this step, unless it is saved already, or the budget has only the time left to save the model.

        Args:
            model_only: keep its weights, as the best so far, but don't count it among those to resume from.
        """
        context, state = self.attempt.context, self.attempt.state
        if self._saved_step == state.step:
            return
        late = self.attempt.clock.left_s < self.estimate_s()
        if late and context.stop.requested is None and context.world_size == 1:
            context.progress.note("No time is left for a last checkpoint: only the model is saved.")
            return
        began = time.monotonic()
        with context.progress.doing("saving"):
            if agree(context.rank == 0 and self._disk_has_room()) and self._stage():
                self._say_state("")
                if not model_only:
                    self._saved_step = state.step
                    with contextlib.suppress(OSError, PtkError):  # the checkpoint itself is there
                        context.record.update(checkpoint_step=state.step)
                elif context.rank == 0:
                    with contextlib.suppress(OSError, PtkError):  # else it stays whole
                        keep_model_only(context.run.checkpoint(state.step))
                if context.rank == 0:
                    rotate(context.run, context.config.train.keep, state.best_step, context.progress.warn)
        self._seconds = time.monotonic() - began

    def _stage(self) -> bool:
        """Write a checkpoint, every process its own files; whether all could."""
        whole = False
        try:
            with contextlib.ExitStack() as stack:
                folder = same(lambda: self._open_stage(stack))
                failure = _failure(lambda: self._write(folder))
                if totals(float(failure is not None))[0]:
                    raise failure or OSError("another process couldn't write its files")
            whole = True
        except Exception as error:
            if not _of_the_disk(error):
                raise
            self._failed(error)
        return agree(whole)

    def _open_stage(self, stack: contextlib.ExitStack) -> Path:
        self.attempt.metrics.sync()
        return stack.enter_context(staged(self.attempt.context.run, self.attempt.state.step))

    def _say_state(self, text: str) -> None:
        if text != self._state:
            self._state = text
            self.attempt.context.progress.status("saving", text or "works again", said=bool(text))

    def _disk_has_room(self) -> bool:
        needed = 1.1 * self.checkpoint_bytes
        free = shutil.disk_usage(self.attempt.context.run.path).free
        if free >= needed:
            return True
        self._failed(OSError(28, f"{free / 1e6:,.0f} MB are free, a checkpoint takes {needed / 1e6:,.0f} MB"))
        return False

    def _failed(self, error: BaseException) -> None:
        context = self.attempt.context
        steps = whole_steps(context.run)
        last = f"the last good checkpoint is {context.run.checkpoint(steps[-1]).name}" if steps else "there is none yet"
        reason = getattr(error, "strerror", None) or first_line(error)
        self._say_state(
            "PAUSED, the disk is full" if any(word in reason for word in ("space", "quota", "MB")) else "FAILED"
        )
        context.progress.warn(
            f"NO CHECKPOINT at step {self.attempt.state.step}: {reason}. Training continues; {last}. "
            "Free some disk space."
        )


def _failure(write: Callable[[], None]) -> Exception | None:
    """What ``write`` fails with, where the disk is full or broken."""
    try:
        write()
    except Exception as error:
        if not _of_the_disk(error):
            raise
        return error
    return None


def _of_the_disk(error: Exception) -> bool:
    # torch reports a full disk as a RuntimeError without errno, safetensors has its own type, and `writing_to` ours.
    kinds = isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError"
    kinds = kinds or (isinstance(error, PtkError) and isinstance(error.__cause__, OSError))
    return kinds and not lost_another(error)
