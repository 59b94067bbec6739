"""The range test finds a rate that trains, and leaves nothing else behind."""

from __future__ import annotations

import json

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import ConfigError
from pretrain_cli.training.measuring.range_test import BEFORE_THE_BEST, find_learning_rate
from pretrain_cli.training.run import train
from tests.support.runs import small


@pytest.mark.slow
def test_the_rate_found_lies_below_the_lowest_loss_and_trains(rows: Artifacts) -> None:
    found = find_learning_rate(small(train__optimizer="adamw"), rows)
    best = found.rates[found.losses.index(min(found.losses))]
    assert found.learning_rate == pytest.approx(best / BEFORE_THE_BEST, rel=0.06)  # told in two digits
    assert list(found.rates) == sorted(found.rates) and min(found.losses) < found.losses[0] - 0.5
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((rows.root / "learning-rate.json").read_text())["learning_rate"] == found.learning_rate
    assert not rows.run("learning-rate").path.exists()
    config = small(train__optimizer="adamw", train__max_steps=10, train__learning_rate=found.learning_rate)
    trained = train(config, rows, run_name="with-the-rate-found")
    assert trained.train_loss is not None and trained.train_loss < found.losses[0]


def test_an_optimizer_without_a_range_test_is_named(rows: Artifacts) -> None:
    with pytest.raises(ConfigError, match="adafactor"):
        find_learning_rate(small(train__optimizer="adafactor"), rows)
