"""The front door of train: prepared rows in, a run with a finished model out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.base import whole_name
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import DivergedError, Interrupted, MissingDependencyError, ModelError, PtkError, UsageError
from pretrain_cli.locking import lock
from pretrain_cli.manifest import damage_explained, read_manifest
from pretrain_cli.model.devices import choose_device
from pretrain_cli.processes import check_amount
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.records import damaged_files
from pretrain_cli.refusals import A_COPY, check_no_links, check_writable, writing_to
from pretrain_cli.run_files import check_changeable, remove_run_files
from pretrain_cli.run_record import RunRecord, RunRecordFile, RunStatus, TrainResult, now, read_run_record
from pretrain_cli.storage import read_lines
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.context import ChoiceLog, open_context
from pretrain_cli.training.ensemble import TrainOne, with_own_teachers
from pretrain_cli.training.keeping.beginning import begin_record, settings_of
from pretrain_cli.training.keeping.checkpoints import choose_checkpoint, clear_staging, remove_after, rotate
from pretrain_cli.training.keeping.resume import (
    Resumed,
    StartingPoint,
    check_unchanged,
    find_run,
    merge,
    read_config,
    refuse_lost_checkpoints,
    result_of,
)
from pretrain_cli.training.keeping.state import RunState, load_state
from pretrain_cli.training.loop import run_loop
from pretrain_cli.training.measuring.announcement import announce
from pretrain_cli.training.measuring.forecast import Done
from pretrain_cli.training.processes.agreement import rank, same, together, wait_for_all, world_size
from pretrain_cli.training.processes.sharding import check_zero_layout, refuse_other_sharding
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.bringing import bring_train_rows, stay_there, without_distant
from pretrain_cli.training.rows.prepared import (
    PreparedRows,
    check_prepared,
    open_prepared,
    other_inputs,
    with_its_base,
)
from pretrain_cli.training.step.rows_at_once import memory_explained


def train(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    run_name: str | None = None,
    resume: str | None = None,
    command: Sequence[str] = (),
    began: float | None = None,
    origins: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train a model on the prepared rows, or resume a run.

    Args:
        config: sections ``model``, ``train``, ``tracking`` and ``trainer``.
        artifacts: holds the prepared data, and receives the run.
        progress: told about choices, steps and trouble.
        run_name: name of a new run; None: the next free ``run-001``.
        resume: None, "" (the run touched last), "RUN" or "RUN@step-000100".
        command: what was typed, for the record.
        began: ``time.monotonic()`` from which a budget of minutes counts; None: now.
        origins: dotted key → the layer that set it, for the reasons; None: all that is set was asked for.

    Raises:
        DataError: nothing is prepared, or it isn't what the run was trained with.
        ConfigError: settings that don't fit each other or the prepared data.
        ModelError: the base or checkpoint can't be used.
        DivergedError: the loss diverged; the last good checkpoint is named.
        Interrupted: a signal came; everything up to that step is saved.
    """
    started = time.monotonic() if began is None else began
    quiet_libraries()
    progress = progress if rank() == 0 else SILENT
    check_amount("train.threads", config.train.threads)
    check_amount("train.workers", config.train.workers)
    manifest = read_manifest(artifacts)
    resumed = find_run(resume, artifacts) if resume is not None else None
    if resumed is not None:
        if run_name is not None and run_name != resumed.run.name:
            raise UsageError("--run names a new run, --resume an old one.", f"Leave out --run {run_name}.")
        if config.model.base:
            config = changed(config, model__base=whole_name(config.model.base))
        config = merge(read_config(resumed.run), config)
    config = with_its_base(config, manifest)
    check_prepared(config, manifest)
    if elsewhere := other_inputs(config, manifest):
        progress.warn(elsewhere)
    bring_train_rows(config, artifacts, progress)
    with damage_explained(artifacts, without_distant(manifest) if stay_there(config, artifacts) else manifest):
        return train_on(
            lambda machine: open_prepared(config, artifacts, manifest, machine.device, progress),
            config,
            artifacts,
            progress,
            run_name=run_name,
            resumed=resumed,
            command=tuple(command),
            started=started,
            origins=origins,
        )


def train_on(
    open_rows: Callable[[Machine], PreparedRows],
    config: Config,
    artifacts: Artifacts,
    progress: Progress,
    *,
    run_name: str | None,
    resumed: Resumed | None = None,
    command: tuple[str, ...] = (),
    started: float,
    origins: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train on the rows that ``open_rows`` gives for the chosen machine; the rest is as in `train`."""
    refuse_other_sharding(config.trainer, os.environ)
    check_writable(artifacts.root, A_COPY)
    if resumed is None:
        check_writable(artifacts.runs, A_COPY)
    else:
        check_no_links(*resumed.run.path.iterdir())
        check_changeable(resumed.run, "resumed", resumed.run.metrics, resumed.run.samples)
    with contextlib.ExitStack() as held:
        held.enter_context(together(choose_device(config.train.device).value))
        run = resumed.run if resumed is not None else same(lambda: _new_run(artifacts, run_name))
        after_lock = held.enter_context(contextlib.ExitStack())
        held.enter_context(writing_to(artifacts.root, A_COPY))
        stop = held.enter_context(StopRequests(progress.warn, run, config.train.on_sigusr1 == "continue"))
        held.enter_context(_run_lock(run))
        after_lock.callback(_leave_nothing, run)  # not where another process has the lock: the run is its
        return _train_locked(
            open_rows,
            config,
            artifacts,
            progress,
            run=run,
            resumed=resumed,
            stop=stop,
            command=command,
            started=started,
            origins=origins or {},
        )


def _train_locked(
    open_rows: Callable[[Machine], PreparedRows],
    config: Config,
    artifacts: Artifacts,
    progress: Progress,
    *,
    run: RunFolder,
    resumed: Resumed | None,
    stop: StopRequests,
    command: tuple[str, ...],
    started: float,
    origins: Mapping[str, str],
) -> TrainResult:
    """Train a run whose folder is locked, or give the result that it has."""
    if resumed is not None and rank() == 0:
        clear_staging(run)
    wait_for_all()
    earlier = read_run_record(run) if resumed is not None else None
    if resumed is not None and (done := result_of(run, earlier, config)) is not None:
        if resumed.checkpoint is not None:
            choose_checkpoint(run, resumed.checkpoint)
        progress.warn(f"Run '{run.name}' is already finished; a larger budget, such as --max-steps, continues it.")
        return done
    for told in damaged_files(run.path, earlier.files, read=True) if earlier is not None else ():
        progress.warn(f"{told}: the curves of this run aren't as they were measured.")
    check_zero_layout(config.trainer, earlier.world_size if earlier is not None else world_size(), world_size())
    return _train_run(
        open_rows,
        config,
        artifacts,
        progress,
        run=run,
        resumed=resumed,
        earlier=earlier,
        stop=stop,
        command=command,
        started=started,
        reasons=Reasons(origins, earlier),
    )


def _train_run(
    open_rows: Callable[[Machine], PreparedRows],
    config: Config,
    artifacts: Artifacts,
    progress: Progress,
    *,
    run: RunFolder,
    resumed: Resumed | None,
    earlier: RunRecord | None,
    stop: StopRequests,
    command: tuple[str, ...],
    started: float,
    reasons: Reasons,
) -> TrainResult:
    """Train from the run's beginning or its checkpoint to the end, its teachers first where it has its own."""
    if earlier is not None and config.train.ensemble == "auto":  # an older ptk began it, with one model
        config = changed(config, train__ensemble=0)
    choices = ChoiceLog(progress, reasons)
    point = _starting_point(resumed, earlier, config.train.keep, progress, choices)
    record = RunRecordFile(run.record, writes=rank() == 0)
    with _failure_recorded(record, run), memory_explained(config.train, lambda: "the model"):
        context = open_context(
            config,
            artifacts,
            open_rows,
            run=run,
            progress=progress,
            stop=stop,
            record=record,
            choices=choices,
            started=started,
            command=command,
            earlier=earlier,
            done=Done(point.state.step, point.state.elapsed_s),
        )
        if context.plan.ensemble:
            begin_record(context, earlier)
            announce(context)
            context, earlier_s = with_own_teachers(context, _teacher_trainer(open_rows, stop, command))
            point.state.elapsed_s = max(point.state.elapsed_s, earlier_s)
        settings = settings_of(context)
        if point.checkpoint is not None:
            check_unchanged(point.state.settings, settings, run)
        point.state.settings = settings
        if not context.plan.ensemble:
            begin_record(context, earlier)
            announce(context)
        return run_loop(context, point)


def _teacher_trainer(
    open_rows: Callable[[Machine], PreparedRows], stop: StopRequests, command: tuple[str, ...]
) -> TrainOne:
    """Trains one model of an ensemble, or continues it where an earlier start of its run was ended."""

    def train_one(run: RunFolder, config: Config, artifacts: Artifacts, progress: Progress) -> TrainResult:
        begun = run.record.is_file()
        return _train_locked(
            open_rows,
            read_config(run) if begun else config,
            artifacts,
            progress,
            run=run,
            resumed=Resumed(run, None) if begun else None,
            stop=stop,
            command=command,
            started=time.monotonic(),
            origins={},
        )

    return train_one


@contextlib.contextmanager
def _failure_recorded(record: RunRecordFile, run: RunFolder) -> Iterator[None]:
    """Write into run.json why the run ended early, if it does."""
    status: RunStatus = "failed"
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
            status = "refused"
        raise
    finally:
        if record.status == "running":
            with contextlib.suppress(OSError, PtkError):  # why the run ended is said, not that it can't be written down
                record.update(status=status, ended=now())


def _new_run(artifacts: Artifacts, name: str | None) -> RunFolder:
    if name is None:
        taken = {entry.name for entry in artifacts.runs.iterdir()} if artifacts.runs.is_dir() else set()
        number = next(index for index in range(1, 10**6) if f"run-{index:03d}" not in taken)
        return artifacts.run(f"run-{number:03d}")
    run = artifacts.run(name)
    if run.record.is_file() or run.model.exists():
        raise UsageError(
            f"There is already a run named '{name}'.", f"Choose another name, or continue that run: --resume {name}"
        )
    alike = next((known for known in artifacts.run_names() if known.lower() == name.lower() and known != name), None)
    if alike is not None:  # macOS and Windows have one folder for both
        raise UsageError(
            f"There is already a run named '{alike}', as '{name}' but for capitals.", "Choose another name."
        )
    return run


def _leave_nothing(run: RunFolder) -> None:
    """Remove the folder of a run that was refused before it began: its name stays free."""
    if rank() != 0 or not run.path.is_dir():
        return
    record = read_run_record(run)
    refused = record is not None and record.status == "refused"
    if refused or all(entry.name == ".lock" for entry in run.path.iterdir()):
        remove_run_files(run)


def _run_lock(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    # Rank 0's lock covers the other ranks of the training.
    return lock(run.path, "training") if rank() == 0 else contextlib.nullcontext()


def _starting_point(
    resumed: Resumed | None, earlier: RunRecord | None, keep: int, progress: Progress, choices: ChoiceLog
) -> StartingPoint:
    """The checkpoint to resume from, and its state; later ones belong to steps that are trained again."""
    if resumed is None:
        return StartingPoint(None, RunState())
    run = resumed.run
    folder, left = same(lambda: choose_checkpoint(run, resumed.checkpoint))
    for entry in left:
        progress.warn(f"The checkpoint {entry.name} is skipped: {entry.reason}.")
    if folder is None and left:
        raise ModelError(f"No checkpoint of run '{run.name}' can be used.", "Start a new run: ptk train")
    if folder is None:
        refuse_lost_checkpoints(run, earlier)
        progress.note("There is no checkpoint yet: the run starts from the beginning.")
        state = RunState()
    else:
        state = load_state(folder)
        if rank() == 0:
            remove_after(run, state.step)
            rotate(run, keep, state.best_step, progress.warn)  # a kill may have come between a save and that
        choices.note(f"resuming from {folder.name}")
    if earlier is not None:
        state.take_over(earlier.rewind)
    return StartingPoint(folder, state)
