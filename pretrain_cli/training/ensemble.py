"""Trains the models of an ensemble inside a run, one after the other, as the teachers of the model that is kept.

Short text teaches one model no more after a few passes, but several models of it, each with its own seed, know
different things: a student of the same size that learns from the text and from their mean distribution ends below each
of them (Kim et al. 2025, arXiv 2509.14786).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.errors import PtkError
from pretrain_cli.formatting import duration, score
from pretrain_cli.progress import Progress
from pretrain_cli.run_record import TrainResult
from pretrain_cli.training.choices.little_text import student_work
from pretrain_cli.training.choices.recipe import choose_passes
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.keeping.checkpoints import remove_all
from pretrain_cli.training.keeping.resume import settled
from pretrain_cli.training.planned_model import rows_for_teachers
from pretrain_cli.training.processes.agreement import same, wait_for_all
from pretrain_cli.training.teacher_models import open_teachers

LEAST_SECONDS = 5.0
"""That each teacher has at least, however late it is."""

TrainOne = Callable[[RunFolder, Config, Artifacts, Progress], TrainResult]
"""Trains a run in a folder to its end, or continues it."""


class Within(Progress):
    """Shows the stages of one teacher by its name; its choices are the run's own, and not said again."""

    def __init__(self, outer: Progress, name: str) -> None:
        self._outer, self._name = outer, name

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self._outer.stage(f"{self._name}: {name}", total, unit)

    def advance(self, completed: float, **facts: float | str) -> None:
        self._outer.advance(completed, **facts)

    def end_stage(self) -> None:
        self._outer.end_stage()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._outer.log(step, values)

    def warn(self, text: str) -> None:
        self._outer.warn(f"{self._name}: {text}")

    def status(self, name: str, text: str, said: bool = False) -> None:
        self._outer.status(name, text, said)


def with_own_teachers(context: TrainingContext, train_one: TrainOne) -> tuple[TrainingContext, float]:
    """The student's context, once all its teachers are trained, and the seconds that earlier starts spent on them.

    Teachers that are finished already are only opened.

    Args:
        context: of the run.
        train_one: trains one of them.

    Raises:
        Interrupted: a signal came; everything up to there is saved.
        DiskError: a teacher can't be saved.
    """
    count, seconds = context.plan.ensemble, context.plan.seconds
    artifacts = context.run.teachers
    runs = [artifacts.run(f"teacher-{place}") for place in range(1, count + 1)]
    earlier_s = 0.0
    for place, run in enumerate(runs, start=1):
        name, since = f"teacher {place} of {count}", time.monotonic()
        left = seconds - earlier_s - (since - context.started) if seconds is not None else None
        share = left and max(LEAST_SECONDS, left / (count - place + 1 + student_work(count)))
        try:
            result = train_one(run, _config(context, place, share), artifacts, Within(context.progress, name))
        except PtkError as error:  # what it says about resuming is meant for the run
            error.message = error.message.replace(run.name, context.run.name)
            error.hint = error.hint.replace(run.name, context.run.name)
            raise
        earlier_s += max(0.0, result.seconds - (time.monotonic() - since))
        if context.rank == 0:
            remove_all(run)
        context.progress.note(f"{name}: {_told(result)}")
        wait_for_all()
    train = changed(context.config, train__teacher=tuple(str(run.model) for run in runs)).train
    teachers = open_teachers(train, artifacts, context.machine, rows_for_teachers(context.rows), context.progress)
    return replace(context, teachers=teachers), same(lambda: earlier_s)


def _config(context: TrainingContext, place: int, seconds: float | None) -> Config:
    """A teacher's: the run's, with another seed, its own length, and nothing that only the run itself needs.

    What the run chose is settled in it, so that a resume, whose config has that already, gives the same.
    """
    chosen = settled(context.config, context.plan, context.machine.precision, context.rows.layout)
    return changed(
        chosen,
        train__seed=(chosen.train.seed + place) % 2**32,
        train__ensemble=0,
        train__epochs=choose_passes(context.rows.text_tokens, base=False),
        train__max_minutes=seconds and seconds / 60,
        train__max_steps=None,
        train__max_tokens=None,
        train__sample_prompts=(),
        train__keep=1,
        train__warmup_steps="auto",
        train__logging_steps="auto",
        train__compile=context.compilation.on and not context.machine.on_cpu,  # each is too short to pay for it there
        tracking__report_to="none",
    )


def _told(result: TrainResult) -> str:
    bits = result.validation_bits_per_byte
    scored = f", {score(bits)} bits per byte" if bits is not None else ""
    return f"{result.steps:,} steps, {duration(result.seconds)}{scored}"
