"""A step that isn't finite is left out, and a run that diverges is stopped."""

from __future__ import annotations

import json

import pytest
import torch

from pretrain_cli.errors import DivergedError
from pretrain_cli.storage import read_lines
from pretrain_cli.training import trainer as trainer_module
from pretrain_cli.training.run import train
from pretrain_cli.training.step.divergence import IN_A_ROW, Guard
from tests.support.runs import Heard, record_of, small


def test_falling_and_noisy_losses_are_fine() -> None:
    guard = Guard([])
    assert all(guard.look(8.0 - 0.02 * step + (step % 5) * 0.2, 1.0) == "fine" for step in range(200))


def test_one_high_loss_is_fine_and_several_in_a_row_are_not() -> None:
    guard = Guard([3.0] * 30)
    assert guard.look(9.0, 1.0) == "fine" and not guard.calm
    assert guard.look(3.1, 1.0) == "fine" and guard.calm
    verdicts = [guard.look(9.0, 1.0) for _ in range(IN_A_ROW)]
    assert verdicts[:-1] == ["fine"] * (IN_A_ROW - 1) and "far above" in verdicts[-1]


def test_what_is_not_finite_is_skipped_and_five_in_a_row_end_the_run() -> None:
    guard = Guard([3.0] * 30)
    assert guard.look(float("nan"), 1.0) == "skip" and guard.look(3.0, float("inf")) == "skip"
    assert guard.look(3.0, 1.0) == "fine"
    verdicts = [guard.look(float("nan"), 1.0) for _ in range(IN_A_ROW)]
    assert verdicts[0] == "skip" and "isn't finite" in verdicts[-1]


def poison(monkeypatch, steps: set[int], only_once: bool = False) -> None:
    """Make the loss of some steps NaN, as a bad batch or a too high rate would."""
    plain = trainer_module.PackedTrainer.training_step

    def poisoned(self, model, inputs, num_items_in_batch=None):
        loss = plain(self, model, inputs, num_items_in_batch)
        if self.attempt.state.step + 1 in steps:
            if only_once:
                steps.discard(self.attempt.state.step + 1)
            self._step_loss = torch.tensor(float("nan"))
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(trainer_module.PackedTrainer, "training_step", poisoned)


def test_a_nan_step_is_left_out_counted_and_written_as_null(rows, monkeypatch) -> None:
    poison(monkeypatch, {3})
    heard = Heard()
    result = train(small(train__max_steps=6), rows, heard, run_name="one-nan")
    lines = read_lines(rows.run("one-nan").metrics)
    assert lines[2]["loss"] is None and lines[-1]["skipped_steps"] == 1
    assert all(line["loss"] for index, line in enumerate(lines) if index != 2)
    assert any("Step 3 is left out" in text for text in heard.warnings)
    assert result.status == "finished" and result.train_loss is not None


def test_a_diverged_run_names_its_last_good_checkpoint_and_keeps_the_rows(rows, monkeypatch) -> None:
    poison(monkeypatch, set(range(7, 30)))
    with pytest.raises(DivergedError) as caught:
        train(small(train__max_steps=30, train__save_steps=2), rows, run_name="diverged")
    run = rows.run("diverged")
    assert caught.value.exit_code == 5 and "step-000006" in caught.value.message
    assert "ptk train --resume diverged --set train.on_divergence=rewind" in caught.value.hint
    assert record_of(run).status == "diverged"
    saved = [json.loads(line) for line in (run.path / "diverged-step-000011.jsonl").read_text().splitlines()]
    assert len(saved) == IN_A_ROW * 4 and len(saved[0]["input_ids"]) == 32
    assert all(len(line["text"].split()) > 3 for line in saved)
    assert max(run.checkpoint_steps()) == 6


@pytest.mark.slow
def test_a_rewind_goes_back_once_and_leaves_those_rows_out(rows, monkeypatch) -> None:
    poison(monkeypatch, set(range(7, 12)), only_once=True)
    heard = Heard()
    config = small(train__max_steps=16, train__save_steps=2, train__on_divergence="rewind")
    result = train(config, rows, heard, run_name="rewound")
    assert result.status == "finished" and result.steps == 16
    assert any("Going back to step-000006" in text for text in heard.warnings)
    lines = read_lines(rows.run("rewound").metrics)
    assert [line["step"] for line in lines] == list(range(1, 17)) and all(line["loss"] for line in lines)


@pytest.mark.slow
def test_a_run_that_diverges_again_after_its_rewind_is_not_told_to_rewind(rows, monkeypatch) -> None:
    """Across resumes as well: nothing between the rewind and the next checkpoint forgets it."""
    poison(monkeypatch, set(range(7, 30)))
    config = small(train__max_steps=16, train__save_steps=2, train__on_divergence="rewind")
    with pytest.raises(DivergedError) as first:
        train(config, rows, run_name="twice")
    heard = Heard()
    with pytest.raises(DivergedError) as second:
        train(small(train__on_divergence="rewind"), rows, heard, resume="twice")
    assert not any("Going back" in text for text in heard.warnings)
    assert all("rewind" not in error.value.hint and "--learning-rate" in error.value.hint for error in (first, second))
