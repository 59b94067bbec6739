"""The front door of plan: says what a training would take, before anything of it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.planning.accelerators import parse_machine
from pretrain_cli.planning.outline import outline_of
from pretrain_cli.planning.result import TrainingPlan
from pretrain_cli.planning.work import PlanWork
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.training.choices.reasons import Reasons
from pretrain_cli.training.teacher_models import teachers_anywhere


def plan_training(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    machine: str = "",
    measure_seconds: float = 20.0,
    mfu: float | None = None,
    hourly_rate: float | None = None,
    watts: float | None = None,
    origins: Mapping[str, str] | None = None,
) -> TrainingPlan:
    """Say what ``ptk train`` with this config would take.

    Args:
        config: as for training; ``data.inputs`` name the text where nothing is prepared yet.
        artifacts: the prepared data, where there is any.
        progress: told about the measurement.
        machine: accelerators that aren't here, "h100x8"; empty: this machine.
        measure_seconds: seconds of real steps on random rows; 0: the time follows from the speed of a matrix product.
        mfu: share of the data sheet's FLOP/s that training reaches, instead of the assumed one.
        hourly_rate: price of the whole machine for an hour.
        watts: power of the whole machine, instead of the assumed one.
        origins: dotted key → the layer that set it, for the reasons; None: all that is set was asked for.

    Raises:
        DataError: nothing is prepared and no text is named.
        ConfigError: settings that contradict each other.
        UsageError: an accelerator that isn't known.
    """
    outline = outline_of(config, artifacts)
    target = parse_machine(machine) if machine else None
    config, untaught = _with_teachers(config, artifacts, prepared=outline.prepared and target is None)
    config = changed(config, model__base=outline.base) if outline.base != config.model.base else config
    real = target is None and measure_seconds > 0
    work = PlanWork(config, artifacts, progress, outline, target, mfu, real_steps=real)
    measured = work.measure(measure_seconds) if real else None
    work.assumptions += untaught
    found = work.result(measured, hourly_rate, watts)
    reasons = Reasons(origins or {})
    return replace(found, choices={name: reasons.told(name, told) for name, told in found.choices.items()})


def _with_teachers(config: Config, artifacts: Artifacts, prepared: bool) -> tuple[Config, list[str]]:
    """The config with its teachers as folders, or without them and with a word about it where they can't be timed."""
    if not config.train.teacher:
        return config, []
    names = teachers_anywhere(config.train, artifacts)
    if prepared:
        return changed(config, train__teacher=names), []
    told = "The time and memory that the teachers take isn't counted: only real steps on prepared rows tell."
    return changed(config, train__teacher=()), [told]
