"""The front door of train: prepared rows in, a run with a finished model out."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.base import base_nature
from pretrain_cli.config.load import to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.errors import DivergedError, Interrupted, MissingDependencyError, ModelError, PtkError, UsageError
from pretrain_cli.locking import lock
from pretrain_cli.manifest import read_manifest
from pretrain_cli.model.devices import choose_device
from pretrain_cli.processes import check_amount
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.refusals import writing_to
from pretrain_cli.run_record import (
    PlanRecord,
    ResumeRecord,
    RunRecord,
    RunRecordFile,
    TrainResult,
    new_run_record,
    now,
    read_run_record,
)
from pretrain_cli.storage import read_lines, write_text
from pretrain_cli.training.choices.machine import Machine
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.context import ChoiceLog, TrainingContext, open_context
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
    settled,
)
from pretrain_cli.training.keeping.state import RunState, Settings, load_state
from pretrain_cli.training.loop import run_loop
from pretrain_cli.training.measuring.announcement import announce
from pretrain_cli.training.processes.agreement import rank, same, together, wait_for_all, world_size
from pretrain_cli.training.processes.sharding import check_zero_layout, refuse_other_sharding
from pretrain_cli.training.processes.signals import StopRequests
from pretrain_cli.training.rows.prepared import (
    PreparedRows,
    check_prepared,
    open_prepared,
    other_inputs,
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
        config = merge(read_config(resumed.run), config)
    config = with_its_base(config, manifest)
    check_prepared(config, manifest)
    if elsewhere := other_inputs(config, manifest):
        progress.warn(elsewhere)
    return train_on(
        lambda machine: open_prepared(config, artifacts, manifest, machine.device),
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
    with contextlib.ExitStack() as held:
        held.enter_context(together(choose_device(config.train.device).value == "cpu"))
        run = resumed.run if resumed is not None else same(lambda: _new_run(artifacts, run_name))
        held.callback(_leave_nothing, run)
        held.enter_context(writing_to(artifacts.root))
        stop = held.enter_context(StopRequests(progress.warn, run, config.train.on_sigusr1 == "continue"))
        held.enter_context(_run_lock(run))
        if resumed is not None and rank() == 0:
            clear_staging(run)
        wait_for_all()  # under the lock
        earlier = read_run_record(run) if resumed is not None else None
        if resumed is not None and (done := result_of(run, earlier, config)) is not None:
            if resumed.checkpoint is not None:
                choose_checkpoint(run, resumed.checkpoint)
            progress.note(f"Run '{run.name}' is already finished; a larger budget, such as --max-steps, continues it.")
            return done
        check_zero_layout(config.trainer, earlier.world_size if earlier is not None else world_size(), world_size())
        choices = ChoiceLog(progress, Reasons(origins or {}, earlier))
        point = _starting_point(resumed, earlier, config.train.keep, progress, choices)
        record = RunRecordFile(run.record, writes=rank() == 0)
        with _failure_recorded(record, run):
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
            )
            settings = _settings(context)
            if point.checkpoint is not None:
                check_unchanged(point.state.settings, settings, run)
            point.state.settings = settings
            _begin_record(context, earlier)
            announce(context)
            return run_loop(context, point)


def _settings(context: TrainingContext) -> Settings:
    """What has to be the same after a resume."""
    return {
        "data_fingerprint": context.rows.fingerprint,
        "tokenizer": context.rows.tokenizer.fingerprint,
        "batch_tokens": context.plan.batch_tokens,
        "rows": len(context.rows.train),
        "mask_documents": context.rows.masked,
    }


def _begin_record(context: TrainingContext, earlier: RunRecord | None) -> None:
    """Write config.toml and run.json; a resume continues the run's own record.

    Between the two, no run has a record without a config, and none that says "finished" has the larger budget of a
    resume that was killed there: repeated, that resume would find nothing to do.
    """
    config = settled(
        context.config, context.plan, context.machine.precision, context.rows.layout, context.compile_model
    )
    if context.rank == 0 and earlier is None:
        write_text(context.run.config, to_toml(config))
    record = earlier or new_run_record(context.run, context.command)
    again = (ResumeRecord(at=now(), command=context.command),) if earlier else ()
    context.record.begin(
        record,
        resumes=(*record.resumes, *again),
        status="running",
        ended=None,
        data_fingerprint=context.rows.fingerprint,
        base=context.config.model.base,
        base_nature=base_nature(context.config.model.base),
        sequence_length=context.rows.sequence_length,
        device=context.machine.device,
        precision=context.machine.precision,
        compiled=context.compile_model,
        threads=context.machine.threads,
        parameters=context.model.num_parameters(),
        world_size=context.world_size,
        choices=tuple(context.choices.lines),
        plan=_plan_record(context),
    )
    if context.rank == 0 and earlier is not None:
        write_text(context.run.config, to_toml(config))


def _plan_record(context: TrainingContext) -> PlanRecord:
    plan = context.plan
    return PlanRecord(
        steps=plan.steps,
        seconds=plan.seconds,
        expected_steps=plan.expected_steps,
        step_seconds=plan.step_seconds,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        batch_tokens=plan.batch_tokens,
        optimizer=plan.optimizer,
        schedule=plan.schedule,
        warmup_steps=plan.warmup_steps,
        save_every=plan.save_every,
        eval_every=plan.eval_every,
        logging_every=plan.logging_every,
        gradient_checkpointing=plan.gradient_checkpointing,
        learning_rate=plan.rates.main,
        matrix_learning_rate=plan.rates.matrix,
        embedding_learning_rate=plan.rates.embedding,
        size=plan.shape.name if plan.shape else None,
    )


@contextlib.contextmanager
def _failure_recorded(record: RunRecordFile, run: RunFolder) -> Iterator[None]:
    """Write into run.json why the run ended early, if it does."""
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
    return run


def _leave_nothing(run: RunFolder) -> None:
    """Remove the folder of a run that was refused before it began: its name stays free."""
    if rank() != 0 or not run.path.is_dir():
        return
    record = read_run_record(run)
    refused = record is not None and record.status == REFUSED
    if refused or all(entry.name == ".lock" for entry in run.path.iterdir()):
        shutil.rmtree(run.path, ignore_errors=True)


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
