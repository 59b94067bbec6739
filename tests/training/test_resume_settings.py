"""What a resume takes from the run, and what from the command that resumes it."""

from __future__ import annotations

import pytest

from pretrain_cli.config.load import changed, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.training.keeping.resume import _changed, merge, model_settings

STARTED = changed(
    Config(), train__early_stopping=3, train__seed=1, train__learning_rate=0.002, train__workers=4, train__max_steps=50
)


def resumed(*assignments: str) -> Config:
    return merge(STARTED, load_config(assignments=assignments, environ={}).config)


def test_what_is_not_given_stays_as_it_was() -> None:
    assert resumed() == STARTED


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("train.early_stopping=0", 0), ("train.early_stopping=5", 5), ("train.workers=auto", "auto")],
)
def test_what_is_given_counts_even_if_it_is_the_default(assignment: str, value: object) -> None:
    key = assignment.partition("=")[0].partition(".")[2]
    assert getattr(resumed(assignment).train, key) == value


@pytest.mark.parametrize("assignment", ["train.seed=0", "train.seed=2", "train.learning_rate=0.001"])
def test_a_change_that_makes_it_another_training_is_refused_even_if_it_is_to_the_default(assignment: str) -> None:
    with pytest.raises(ConfigError, match=f"started with {assignment.partition('=')[0]}"):
        resumed(assignment)


def test_auto_leaves_to_the_run_what_it_chose_at_its_start() -> None:
    assert resumed("train.learning_rate=auto").train.learning_rate == 0.002


def test_a_budget_replaces_the_budgets_of_before() -> None:
    longer = resumed("train.epochs=2").train
    assert longer.epochs == 2 and longer.max_steps is None


def test_a_setting_that_a_newer_library_adds_is_no_other_model() -> None:
    before = model_settings({"rope_parameters": {"rope_theta": 1.0}, "hidden_size": 8, "transformers_version": "5"})
    newer = {"rope_parameters": {"rope_theta": 1.0, "new": None}, "hidden_size": 8, "also": 1}
    assert not _changed(before, model_settings(newer))
    assert _changed(before, model_settings({**newer, "rope_parameters": {"rope_theta": 2.0}})) == "rope_parameters"
