"""The front door of train: prepared rows in, a run with a finished model out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from pretrain_cli.artifacts import Artifacts, NoSpaceError, RunFolder, lock, read_lines, writing_to
from pretrain_cli.config.model import Config
from pretrain_cli.errors import DivergedError, Interrupted, MissingDependencyError, ModelError, UsageError
from pretrain_cli.model.build import check_base_matches
from pretrain_cli.model.devices import choose_device
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.training.choices.announcement import announce, expected_seconds
from pretrain_cli.training.choices.compilation import choose_compile
from pretrain_cli.training.choices.machine import choose_machine
from pretrain_cli.training.context import Start, begin_record, model_and_plan, settings_to_keep
from pretrain_cli.training.keeping.checkpoints import choose_checkpoint, clear_staging, remove_after
from pretrain_cli.training.keeping.record import RunRecord, now, read_record
from pretrain_cli.training.keeping.resume import check_unchanged, find_run, merge, read_config, result_of
from pretrain_cli.training.keeping.state import RunState, load_state
from pretrain_cli.training.loop import run_course
from pretrain_cli.training.processes.agreement import rank, same, together, wait_for_all, world_size
from pretrain_cli.training.processes.sharding import check_zero_layout, refuse_other_sharding
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.result import TrainResult
from pretrain_cli.training.rows.prepared import (
    check_prepared,
    open_prepared,
    other_inputs,
    prepared_tokenizer,
    with_its_base,
)

REFUSED = "refused"
"""A run whose settings ended it before its first step."""


def train(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    run_name: str | None = None,
    resume: str | None = None,
    command: Sequence[str] = (),
    began: float | None = None,
) -> TrainResult:
    """Train a model on the prepared rows, or go on with a run.

    Args:
        config: sections ``model``, ``train``, ``tracking`` and ``trainer``.
        artifacts: holds the prepared data, and receives the run.
        progress: told about choices, steps and trouble.
        run_name: name of a new run; None: the next free ``run-001``.
        resume: None, "" (the run touched last), "RUN" or "RUN@step-000100".
        command: what was typed, for the record.
        began: ``time.monotonic()`` from which a budget of minutes counts; None: now.

    Raises:
        DataError: nothing is prepared, or it isn't what the run was trained with.
        ConfigError: settings that don't fit each other or the prepared data.
        ModelError: the base or checkpoint can't be used.
        DivergedError: the loss left its course; the last good checkpoint is named.
        Interrupted: a signal came; everything up to that step is saved.
    """
    started = time.monotonic() if began is None else began
    quiet_libraries()
    progress = progress if rank() == 0 else SILENT
    manifest = artifacts.read_manifest()
    run, checkpoint = find_run(resume, artifacts) if resume is not None else (None, None)
    if run is not None:
        if run_name is not None and run_name != run.name:
            raise UsageError("--run names a new run, --resume an old one.", f"Leave out --run {run_name}.")
        config = merge(read_config(run), config)
    config = with_its_base(config, manifest)
    check_prepared(config, manifest)
    if elsewhere := other_inputs(config, manifest):
        progress.warn(elsewhere)
    refuse_other_sharding(config.trainer, os.environ)
    with contextlib.ExitStack() as held:
        held.enter_context(together(choose_device(config.train.device).value == "cpu"))
        run = run or same(lambda: _new_run(artifacts, run_name))
        held.callback(_leave_nothing, run)
        held.enter_context(writing_to(artifacts.root))
        stop = held.enter_context(StopRequests(progress.warn, run))
        held.enter_context(_run_lock(run))
        wait_for_all()  # under the lock
        if resume is not None and (done := result_of(run, config)) is not None:
            if checkpoint is not None:
                choose_checkpoint(run, checkpoint)
            progress.note(f"Run '{run.name}' is finished already; a larger budget, such as --max-steps, continues it.")
            return done
        earlier = read_record(run) if resume is not None else {}
        start = _open(config, artifacts, progress, run, manifest, stop, started, tuple(command), earlier)
        check_zero_layout(config.trainer, earlier.get("world_size", world_size()), world_size())
        folder, state = _find_checkpoint(start, checkpoint) if resume is not None else (None, RunState())
        state.take_over(earlier.get("rewind"))
        with _recorded(start.record, run):
            return _train(start, folder, state, earlier)


def _open(
    config: Config,
    artifacts: Artifacts,
    progress: Progress,
    run: RunFolder,
    manifest: dict[str, Any],
    stop: StopRequests,
    started: float,
    command: tuple[str, ...],
    earlier: dict[str, Any],
) -> Start:
    """Open what is prepared, and choose what to compute on."""
    tokenizer = prepared_tokenizer(artifacts, manifest)
    check_base_matches(config, manifest, artifacts)
    choices: list[str] = []

    def note(text: str) -> None:
        choices.append(text)
        progress.note(text)

    machine = choose_machine(config.train, earlier, note)
    prepared = open_prepared(config, artifacts, manifest, tokenizer, machine.device)
    note(f"documents {'kept apart' if prepared.masked else 'seen across'} in a row")
    record = RunRecord(run.record, {}, writes=rank() == 0)
    return Start(config, artifacts, progress, run, stop, started, command, prepared, machine, record, choices)


def _train(start: Start, folder: Path | None, state: RunState, earlier: dict[str, Any]) -> TrainResult:
    """Build, then train from checkpoint ``folder``."""
    set_seed(start.config.train.seed)
    model, plan = model_and_plan(start)
    compile_it = choose_compile(start.config.train.compile, start.machine, plan, expected_seconds(start, model, plan))
    start.compiled = compile_it.value
    start.note(f"compile {'on' if compile_it.value else 'off'}: {compile_it.reason}")
    settings = settings_to_keep(start, plan)
    if folder is not None:
        check_unchanged(state.settings, settings, start.run)
    begin_record(start, model, plan, earlier)
    state.settings = settings
    announce(start, model, plan)
    return run_course(start, model, plan, folder, state)


@contextlib.contextmanager
def _recorded(record: RunRecord, run: RunFolder) -> Any:
    """Write into run.json how the run broke off, if it does."""
    status = "failed"
    try:
        yield
        return
    except (Interrupted, KeyboardInterrupt):
        status = "interrupted"
        raise
    except DivergedError:
        status = "diverged"
        raise
    except (UsageError, MissingDependencyError):
        if not run.checkpoint_steps() and not (run.metrics.is_file() and read_lines(run.metrics)):
            status = REFUSED
        raise
    finally:
        if record.values.get("status") == "running":
            with contextlib.suppress(NoSpaceError):  # what broke the run off is said, not that it can't be written down
                record.update(status=status, ended=now())


def _new_run(artifacts: Artifacts, name: str | None) -> RunFolder:
    if name is None:
        taken = {entry.name for entry in artifacts.runs.iterdir()} if artifacts.runs.is_dir() else set()
        number = next(index for index in range(1, 10**6) if f"run-{index:03d}" not in taken)
        return artifacts.run(f"run-{number:03d}")
    run = artifacts.run(name)
    if run.record.is_file() or run.model.exists():
        raise UsageError(
            f"There is a run named '{name}' already.", f"Choose another name, or go on with it: --resume {name}"
        )
    return run


def _leave_nothing(run: RunFolder) -> None:
    """Remove the folder of a run that was refused before it began: its name stays free."""
    if rank() != 0 or not run.path.is_dir():
        return
    if read_record(run).get("status") == REFUSED or all(entry.name == ".lock" for entry in run.path.iterdir()):
        shutil.rmtree(run.path, ignore_errors=True)


def _run_lock(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    # The other ranks of one training stand under rank 0's lock.
    return lock(run.path, "training") if rank() == 0 else contextlib.nullcontext()


def _find_checkpoint(start: Start, wanted: str | None) -> tuple[Path | None, RunState]:
    """The checkpoint to go on from, and its state; later ones belong to a course that is left."""
    run, progress = start.run, start.progress
    if rank() == 0:
        clear_staging(run)
    folder, left = same(lambda: choose_checkpoint(run, wanted))
    for entry in left:
        progress.warn(f"The checkpoint {entry.name} is left aside: {entry.reason}.")
    if folder is None:
        if left:
            raise ModelError(f"No checkpoint of run '{run.name}' can be used.", "Start a new run: ptk train")
        progress.note("No checkpoint yet: the run starts from its beginning.")
        return None, RunState()
    state = load_state(folder)
    if rank() == 0:
        remove_after(run, state.step)
    start.note(f"going on from {folder.name}")
    return folder, state
