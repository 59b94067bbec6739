"""Decides whether there is time and disk space for a checkpoint, and saves it; a full disk never ends the run."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pretrain_cli.errors import PtkError, first_line
from pretrain_cli.formatting import byte_size
from pretrain_cli.processes import lost_another
from pretrain_cli.training.attempt import Attempt
from pretrain_cli.training.keeping.background import (
    STOP_WAIT_S,
    WORTH_BYTES,
    Background,
    Copy,
    HostCopy,
    as_it_is,
    memory_lacking,
)
from pretrain_cli.training.keeping.checkpoints import (
    Hashes,
    keep_model_only,
    read_back,
    rotate,
    staged,
    whole_steps,
)
from pretrain_cli.training.measuring.forecast import save_seconds
from pretrain_cli.training.processes.agreement import agree, apart, gathered, same, totals

TORCHS_FILE_ERRORS = ("inline_container", "PytorchStreamWriter", "iostream error", "Parent directory", "No space left")
"""Words of torch's RuntimeErrors about a file; one without them is not the disk's: no memory, a failed kernel."""

T = TypeVar("T")
Begin = Callable[[Path, Copy], Callable[[], None]]
"""Writes what is small into a folder, copies the rest, and gives what writes the copy."""


@dataclass
class Saving:
    """A checkpoint on its way to the disk.

    Attributes:
        step: whose state it holds.
        model_only: see `Saver.save`.
        best_step: the best one, at that step.
        began: when, by the monotonic clock.
        files: size and hash of each file.
        whole: whether it is there.
        error: what the disk refused it with.
        warnings: what to tell of older checkpoints.
        seconds: from its begin until it was there.
    """

    step: int
    model_only: bool
    best_step: int
    began: float
    files: Hashes = field(default_factory=dict)
    whole: bool = False
    error: Exception | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Saver:
    """Stages, fsyncs, verifies and renames checkpoints; a full disk pauses saving and never ends the run.

    A large one is copied into the CPU's memory, and goes to the disk from there while training continues, one at a
    time. Where the memory holds no copy, training waits.

    Args:
        attempt: whose state goes into a checkpoint.
        begin: begins to write weights, optimizer and the rest into a folder.
        checkpoint_bytes: what a checkpoint will take.
        copied_bytes: of them, those in this process's copy; None: this state can't be copied.
    """

    def __init__(
        self, attempt: Attempt, begin: Begin, checkpoint_bytes: int, copied_bytes: float | None = None
    ) -> None:
        self.attempt, self.checkpoint_bytes = attempt, checkpoint_bytes
        self.blocked_s = 0.0  # of all saves
        self._begin, self._copied_bytes = begin, copied_bytes
        self._saved_step = self._before = attempt.state.step
        self._seconds = 0.0  # of the last save
        self._state = ""
        self._copy: HostCopy | None = None
        self._in_background: bool | None = None  # decided at the first save
        self._background = Background()
        self._pending: Saving | None = None

    def estimate_s(self) -> float:
        """Seconds for the last checkpoint and the model."""
        return 2 * (self._seconds or save_seconds(self.checkpoint_bytes))

    def save(self, model_only: bool = False, at_end: bool = False) -> None:
        """Save this step, unless it is saved already, or the budget has only the time left to save the model.

        Args:
            model_only: keep its weights, as the best so far, but don't count it among those to resume from.
            at_end: nothing is trained after it: it is on the disk when this returns.
        """
        context, state = self.attempt.context, self.attempt.state
        began = time.monotonic()
        if self._saved_step != state.step:
            self.wait()  # one at a time: the copy is in use
            late = self.attempt.clock.left_s < self.estimate_s()
            if late and context.stop.requested is None and context.world_size == 1:
                context.progress.note("No time is left for a last checkpoint: only the model is saved.")
                return
            with context.progress.doing("saving"):
                if agree(context.rank == 0 and self._disk_has_room()):
                    saving = Saving(state.step, model_only, state.best_step, began)
                    self._save(saving, not at_end and self._may_continue())
        if at_end:
            self.wait()
        self.blocked_s += time.monotonic() - began

    def look(self) -> None:
        """Take note of a checkpoint that is there since the last call; after each step."""
        if self._pending is not None and self._background.ended:
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint on its way is there, or is known not to be."""
        if self._pending is None:
            return
        with self.attempt.context.progress.doing("saving") if not self._background.ended else contextlib.nullcontext():
            saving, self._pending = self._pending, None
            self._background.wait()
        self._take(saving)

    def close(self) -> None:
        """Give up the checkpoint on its way, if there is one, and let the copy go."""
        if self._pending is not None:
            self._background.stop()
            with contextlib.suppress(Exception):
                self._background.wait(STOP_WAIT_S)
        if self._copy is not None and self._background.ended:
            self._copy.close()

    def _may_continue(self) -> bool:
        """Whether training continues while a checkpoint is written; decided once, by all processes together."""
        if self._in_background is None:
            setting = self.attempt.context.config.train.background_saves
            wanted = setting if isinstance(setting, bool) else self.checkpoint_bytes >= WORTH_BYTES
            lacking = memory_lacking(self._copied_bytes) if wanted and self._copied_bytes else None
            self._in_background = wanted and self._copied_bytes is not None
            if totals(float(lacking is not None))[0]:
                self._in_background = False
                needed, free = lacking or (self.checkpoint_bytes, 0.0)
                self.attempt.context.progress.note(
                    f"Training waits while a checkpoint is written: the memory has no room for a copy of "
                    f"{byte_size(needed)}, {byte_size(free)} are free."
                )
            if self._in_background:
                self._copy = HostCopy(self.attempt.context.model.device)
        return self._in_background

    def _save(self, saving: Saving, in_background: bool) -> None:
        """Write a checkpoint, every process its own files: here, or from a copy in the background."""
        with contextlib.ExitStack() as stack:
            folder, failure = _tried(lambda: same(lambda: self._open_stage(stack, saving)))
            if folder is None:  # rank 0 couldn't, and all know it
                saving.error = failure
                self._take(saving)
                return
            copy = self._copy if in_background and self._copy is not None else as_it_is
            finish, failure = _tried(lambda: self._begin(folder, copy))
            stage = stack.pop_all()
        self._before, self._saved_step = self._saved_step, self._saved_step if saving.model_only else saving.step
        if not in_background:
            self._complete(saving, stage, folder, finish, failure)
            self._take(saving)
            return

        def beside() -> None:
            with apart():
                self._complete(saving, stage, folder, finish, failure)

        self._pending = saving
        self._background.start(beside)

    def _complete(
        self,
        saving: Saving,
        stage: contextlib.ExitStack,
        folder: Path,
        finish: Callable[[], None] | None,
        failure: Exception | None,
    ) -> None:
        """Write the rest, read it back, give the folder its name and remove older ones; says nothing itself."""
        context = self.attempt.context
        try:
            with stage:
                hashes: Hashes | None = None
                if finish is not None:
                    hashes, failure = _tried(lambda: self._written(folder, finish))
                parts = gathered(hashes)
                if failure is not None or None in parts:
                    raise failure or OSError("another process couldn't write its files")
                for part in parts:
                    saving.files |= part or {}
                self._background.check()
            saving.whole = True
        except Exception as error:
            if not _of_the_disk(error):
                raise
            saving.error = error
        saving.whole = agree(saving.whole)
        if saving.whole and context.rank == 0:
            if saving.model_only:
                with contextlib.suppress(OSError, PtkError):  # else it stays whole
                    keep_model_only(context.run.checkpoint(saving.step))
            rotate(context.run, context.config.train.keep, saving.best_step, saving.warnings.append)
        saving.seconds = time.monotonic() - saving.began

    def _written(self, folder: Path, finish: Callable[[], None]) -> Hashes:
        """Size and hash of this process's files, once they are written."""
        finish()
        context = self.attempt.context
        return read_back(folder, context.rank, context.world_size, self._background.check)

    def _open_stage(self, stack: contextlib.ExitStack, saving: Saving) -> Path:
        self.attempt.metrics.sync()
        return stack.enter_context(staged(self.attempt.context.run, saving.step, lambda _: saving.files))

    def _take(self, saving: Saving) -> None:
        """Say and record how a checkpoint went."""
        context = self.attempt.context
        for text in saving.warnings:
            context.progress.warn(text)
        if saving.error is not None:
            self._failed(saving.error, saving.step)
        if not saving.whole:
            self._saved_step = self._before
            return
        self._seconds = saving.seconds
        self._say_state("")
        if not saving.model_only:
            with contextlib.suppress(OSError, PtkError):  # the checkpoint itself is there
                context.record.update(checkpoint_step=saving.step, peak_memory_bytes=context.peak_bytes)

    def _say_state(self, text: str) -> None:
        if text != self._state:
            self._state = text
            self.attempt.context.progress.status("saving", text or "works again", said=bool(text))

    def _disk_has_room(self) -> bool:
        needed = 1.1 * self.checkpoint_bytes
        free = shutil.disk_usage(self.attempt.context.run.path).free
        if free >= needed:
            return True
        lacking = OSError(28, f"{free / 1e6:,.0f} MB are free, a checkpoint takes {needed / 1e6:,.0f} MB")
        self._failed(lacking, self.attempt.state.step)
        return False

    def _failed(self, error: BaseException, step: int) -> None:
        context = self.attempt.context
        steps = whole_steps(context.run)
        last = f"the last good checkpoint is {context.run.checkpoint(steps[-1]).name}" if steps else "there is none yet"
        reason = getattr(error, "strerror", None) or first_line(error)
        self._say_state(
            "PAUSED, the disk is full" if any(word in reason for word in ("space", "quota", "MB")) else "FAILED"
        )
        context.progress.warn(
            f"NO CHECKPOINT at step {step}: {reason}. Training continues; {last}. Free some disk space."
        )


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What ``make`` gives, or what it fails with, where the disk is full or broken."""
    try:
        return make(), None
    except Exception as error:
        if not _of_the_disk(error):
            raise
        return None, error


def _of_the_disk(error: Exception) -> bool:
    # torch reports a full disk as a RuntimeError without errno, safetensors has its own type, and `writing_to` ours.
    text = str(error)
    kinds = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
    kinds = kinds or (isinstance(error, RuntimeError) and any(words in text for words in TORCHS_FILE_ERRORS))
    kinds = kinds or (isinstance(error, PtkError) and isinstance(error.__cause__, OSError))
    return kinds and not lost_another(error)
