"""A run that stops early leaves the best model, and says so."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from pretrain_cli.storage import read_lines
from pretrain_cli.training.run import train
from tests.support.runs import Heard, small

OVERSHOOTS = {
    "train__max_steps": 60,
    "train__eval_steps": 3,
    "train__early_stopping": 2,
    "train__optimizer": "adamw",
    "train__schedule": "constant",
    "train__learning_rate": 0.5,
}


@pytest.mark.parametrize("save_steps", ["auto", 7])
@pytest.mark.slow
def test_the_model_is_that_of_the_best_validation(rows, save_steps: int | str) -> None:
    heard = Heard()
    result = train(small(**OVERSHOOTS, train__save_steps=save_steps), rows, heard, run_name=f"early-{save_steps}")
    run = rows.run(result.run)
    lines = read_lines(run.metrics)
    validations = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    best = min(validations, key=lambda step: validations[step])
    assert result.steps == best + 2 * 3 < 60 and result.model_step == best
    assert max(validations) == result.steps and validations[result.steps] > validations[best]
    assert result.validation_loss == pytest.approx(validations[best], rel=1e-4)
    assert f"the model is that of step {best}" in " ".join(heard.notes)
    saved, kept = (load_file(folder / "model.safetensors") for folder in (run.model, run.checkpoint(best)))
    assert all((saved[name] == kept[name]).all() for name in saved)


def test_a_run_that_reaches_its_end_keeps_its_last_weights(rows) -> None:
    result = train(small(**{**OVERSHOOTS, "train__max_steps": 3}), rows, run_name="whole")
    assert result.steps == 3 and result.model_step is None
