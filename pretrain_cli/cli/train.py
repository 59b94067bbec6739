"""Implements `ptk train`: trains a model on packed rows."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import base_nature
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session, loading
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size, count_of, duration, exact, rate, score
from pretrain_cli.manifest import read_manifest
from pretrain_cli.progress import SILENT

if TYPE_CHECKING:
    from pretrain_cli.run_record import TrainResult

NOT_MEASURED = "not measured"


@command(
    "train.max_minutes",
    "train.max_steps",
    "train.max_tokens",
    "train.epochs",
    "train.device",
    "train.workers",
    "train.precision",
    "model.base",
    "model.size",
    "train.method",
    "train.learning_rate",
    "train.batch_tokens",
    "train.seed",
    "train.teacher",
    "train.processes",
    "train.shard_model",
    examples=(
        "ptk train --device auto --workers 4",
        "ptk train --max-minutes 2 --run first",
        "ptk train --resume",
        "ptk train --preset continue --base smollm2 --max-steps 200",
        "ptk train --teacher large --size micro",
        "ptk train --set train.learning_rate=1e-3",
    ),
)
def train(
    session: Session,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Name of the run. Default: run-001, run-002, …")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="[RUN]", help="Resume a run: the latest one, RUN, or RUN@step-000100."),
    ] = None,
    find_learning_rate: Annotated[
        bool,
        typer.Option("--find-learning-rate", help="Only run a short range test and suggest a learning rate."),
    ] = False,
) -> None:
    """Train a model on the prepared rows.

    Without a budget, ptk chooses one and says so at the start. Ctrl-C saves and stops; [bold]--resume[/] continues
    exactly there. If the rows were prepared with a base, training continues that base.
    """
    began = time.monotonic()  # --max-minutes counts from here, including the imports
    if find_learning_rate:
        if resume is not None:
            raise UsageError("--find-learning-rate and --resume don't work together.", "Use only one of them.")
        return _find_rate(session)
    _check_names(session.artifacts, run, resume)
    from pretrain_cli import processes
    from pretrain_cli.training.keeping.tracking import say_wandb

    launched = processes.LAUNCHER in os.environ  # by ptk itself, which has said this already
    with session.progress() as progress:
        say_wandb(session.config, progress, said=launched)
        with loading(SILENT if launched else progress):
            from pretrain_cli.training.processes.launch import launch, unheard_launcher, wanted_processes

            wanted = wanted_processes(session.config.train).value if processes.world_size() == 1 else 1
            if wanted == 1:
                from pretrain_cli.training.run import train as run_train
        if warning := unheard_launcher():
            progress.warn(warning)
        if wanted > 1:
            progress.note(f"starting {wanted} processes")
            launch(wanted, session.command[1:], session.console.debug)
            return
        result = run_train(
            session.config,
            session.artifacts,
            progress,
            run_name=run,
            resume=resume,
            command=session.command,
            began=began,
            origins=session.resolved.origins,
        )
    base = session.config.model.base or read_manifest(session.artifacts).base
    session.console.result(_title(result), _facts(result, base), result)
    session.console.next("ptk evaluate", 'ptk generate "..."')


def _check_names(artifacts: Artifacts, run: str | None, resume: str | None) -> None:
    """Find out before the libraries load that nothing is prepared or that a run's name is wrong."""
    read_manifest(artifacts)
    if run is not None:
        artifacts.run(run)
    if resume:
        artifacts.existing_run(resume.partition("@")[0] or None)


def _find_rate(session: Session) -> None:
    with session.progress() as progress:
        with loading(progress):
            from pretrain_cli.training.measuring.range_test import find_learning_rate

        found = find_learning_rate(session.config, session.artifacts, progress, command=session.command)
    facts = [("planned", f"{found.planned:.2g}"), ("plot", str(found.picture))]
    matrices = ""
    if found.matrix_learning_rate is not None:
        matrices = f" --set train.matrix_learning_rate={found.matrix_learning_rate:.2g}"
        facts.insert(1, ("for matrices", f"{found.matrix_learning_rate:.2g}"))
    session.console.result(f"Suggested learning rate: {found.learning_rate:.2g}", facts, found)
    session.console.next(f"ptk train --learning-rate {found.learning_rate:.2g}{matrices}")


def _title(result: TrainResult) -> str:
    work = f"{count_of(result.steps, 'step')}, {count_of(result.tokens, 'token')}, {duration(result.seconds)}"
    return f"Run {result.run} {result.status}: {work}"


def _facts(result: TrainResult, base: str) -> list[tuple[str, str]]:
    planned = result.planned_steps
    short = planned is not None and result.steps < planned
    validation = score(result.validation_loss, NOT_MEASURED)
    if result.validation_bits_per_byte is not None:
        validation = f"loss {validation}, {score(result.validation_bits_per_byte)} bits per byte"
        if result.validation_rows:
            validation += f", on {count_of(result.validation_rows, 'held-out row')}"
    return [
        *([("base", base_nature(base))] if base_nature(base) else []),
        *([("planned", f"about {count_of(planned or 0, 'step')}")] if short else []),
        *([("outcome", result.outcome)] if result.outcome else []),
        ("train loss", f"{score(result.first_loss, NOT_MEASURED)} → {score(result.train_loss, NOT_MEASURED)}"),
        ("validation", validation),
        ("speed", rate(result.tokens_per_second, "tokens")),
        ("peak memory", byte_size(result.peak_memory_bytes)),
        *([("W&B", result.tracking)] if result.tracking else []),
        ("model", f"{result.model}{'' if result.model_step is None else f' (step {exact(result.model_step)})'}"),
    ]
