"""Chooses how many models a short text is learned by, where there is time for more than one."""

from __future__ import annotations

from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.formatting import count_of
from pretrain_cli.model.devices import ASKED, Choice
from pretrain_cli.training.choices.step_cost import FORWARD_SHARE

SIZES = (8, 4, 2)
"""Numbers of teachers that are chosen from, the largest that the time pays for."""
STUDENT_PASSES = 2.0
"""Passes of the student, in units of its teachers' passes: with their help it doesn't learn the text by heart."""
SPARE = 1.25
"""Time that is kept for validations, saving and a machine that gets slower."""
LEAST_SECONDS = 120.0
"""Shorter runs are tried out by hand: one model then."""


def student_work(count: int) -> float:
    """What a student with ``count`` teachers takes, in units of one teacher's training."""
    return STUDENT_PASSES * (1 + FORWARD_SHARE * count)


def choose_ensemble(train: TrainConfig, base: bool, times: float, seconds: float | None) -> Choice[int]:
    """Number of teachers; 0: one model learns alone.

    Args:
        train: what was asked for.
        base: whether a base is continued.
        times: how many times over the time pays for all useful passes of one model; 0 where something else ends the
            run than the text.
        seconds: of the budget.

    Raises:
        ConfigError: teachers of its own beside given ones, or with a base.
    """
    if train.ensemble != "auto":
        if train.ensemble and base:
            raise ConfigError(
                "train.ensemble trains models from scratch, but a base is given.", "Leave out train.ensemble."
            )
        if train.ensemble and train.teacher:
            raise ConfigError("train.ensemble and train.teacher exclude each other.", "Use only one of them.")
        return Choice(train.ensemble, f"{_models(train.ensemble)}: {ASKED}" if train.ensemble else "")
    if base or train.teacher or seconds is None or seconds < LEAST_SECONDS:
        return Choice(0, "")
    found = next((count for count in SIZES if SPARE * (count + student_work(count)) <= times), 0)
    why = "more passes would teach one model nothing new, and the time is enough for several (train.ensemble=0: one)"
    return Choice(found, f"{_models(found)}: {why}" if found else "")


def _models(count: int) -> str:
    return f"{count_of(count, 'model')} first, which then teach the one that is kept"
