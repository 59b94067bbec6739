"""`train` turns prepared rows into a model, a record and metrics."""

from __future__ import annotations

import importlib.util
import json
import time
import tomllib

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.rows.batches import PackedDataset
from pretrain_cli.errors import ConfigError, MissingDependencyError, ModelError, UsageError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.storage import read_lines
from pretrain_cli.training.keeping.checkpoints import fault
from pretrain_cli.training.run import TrainResult, train
from tests.support.runs import Heard, small
from tests.support.tiny import make_model


@pytest.fixture(scope="module")
def done(rows: Artifacts) -> tuple[Artifacts, TrainResult, Heard]:
    heard = Heard()
    config = small(train__max_steps=12, train__eval_steps=5, train__save_steps=4, train__sample_prompts=["The whale"])
    return rows, train(config, rows, heard, run_name="done", command=("ptk", "train")), heard


def test_a_run_ends_with_a_model_that_opens_with_the_plain_library(done) -> None:
    artifacts, result, _ = done
    assert result.status == "finished" and result.steps == 12 and result.tokens == 12 * 4 * 32
    model = AutoModelForCausalLM.from_pretrained(result.model)
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.use_cache is True
    ids = torch.tensor([tokenizer("The whale", add_special_tokens=False)["input_ids"]])
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3
    assert artifacts.latest_run().name == "done"
    assert "from scratch" in (result.model / "README.md").read_text()


def test_the_loss_falls_and_held_out_text_is_measured(done) -> None:
    _, result, heard = done
    losses = [line["loss"] for line in heard.logged if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert result.validation_loss is not None and result.validation_loss < losses[0]
    assert result.validation_bits_per_byte is not None and 1 < result.validation_bits_per_byte < 8


def test_metrics_have_each_step_once_with_the_promised_keys(done) -> None:
    artifacts, _, _ = done
    lines = read_lines(artifacts.run("done").metrics)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for key in ("tokens", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "elapsed_s"):
        assert all(key in line for line in lines), key
    assert [line["step"] for line in lines if "validation_loss" in line] == [5, 10, 12]


def test_the_record_says_how_the_model_came_about(done) -> None:
    artifacts, _, _ = done
    run = artifacts.run("done")
    record = json.loads(run.record.read_text())
    assert record["status"] == "finished" and record["command"] == ["ptk", "train"]
    assert record["data_fingerprint"] == read_manifest(artifacts).fingerprint
    assert record["versions"]["torch"] and record["started"] and record["ended"]
    assert any(choice.startswith("device cpu") for choice in record["choices"])
    assert record["result"]["planned_steps"] == record["result"]["steps"] == 12
    assert (run.path / "curves.png").stat().st_size > 1000
    assert [json.loads(line)["step"] for line in (run.path / "samples.jsonl").read_text().splitlines()] == [5, 10, 12]


@pytest.mark.slow
def test_the_written_config_repeats_the_run(done) -> None:
    artifacts, _, _ = done
    config = Config.model_validate(tomllib.loads(artifacts.run("done").config.read_text()))
    train(config, artifacts, run_name="again")
    first, second = (read_lines(artifacts.run(name).metrics) for name in ("done", "again"))
    assert [line["loss"] for line in first] == [line["loss"] for line in second]


def test_the_newest_checkpoints_and_the_best_are_kept(done) -> None:
    artifacts, _, _ = done
    assert artifacts.run("done").checkpoint_steps() == [8, 12]


@pytest.mark.slow
def test_the_best_weights_are_kept_where_no_save_was_due(rows: Artifacts) -> None:
    settings = {"train__max_steps": 12, "train__eval_steps": 5, "train__save_steps": 4, "train__early_stopping": 100}
    run = rows.run(train(small(**settings), rows).run)
    found = [line for line in read_lines(run.metrics)[:-1] if "validation_loss" in line]
    best = min(found, key=lambda line: line["validation_loss"])["step"]
    assert best == 10 and run.checkpoint_steps() == [8, 10, 12]
    assert "holds the model only" in fault(run.checkpoint(10)) and not fault(run.checkpoint(8))
    assert (run.checkpoint(10) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"train__max_tokens": 700}, 5), ({"train__epochs": 0.05}, None), ({"train__max_steps": 2}, 2)],
)
@pytest.mark.slow
def test_each_budget_ends_the_run(rows: Artifacts, budget: dict[str, float], steps: int | None) -> None:
    result = train(small(**budget), rows)
    expected = steps or int(0.05 * read_manifest(rows).train.rows / 4)
    assert result.steps == expected


@pytest.mark.slow
def test_minutes_end_with_a_saved_model_inside_the_budget(rows: Artifacts) -> None:
    started = time.monotonic() - 0.5  # what the command took to load counts too
    result = train(small(train__max_minutes=0.1), rows, run_name="timed", began=started)
    assert time.monotonic() - started < 0.1 * 60
    assert result.steps > 3 and (result.model / "config.json").is_file()
    rates = [line["learning_rate"] for line in read_lines(rows.run("timed").metrics)]
    assert rates[-1] < 0.35 * max(rates)


@pytest.mark.slow
def test_a_machine_that_gets_busy_at_the_end_still_saves_inside_the_budget(rows: Artifacts, monkeypatch) -> None:
    """The last validation takes a hundred times as long as planned: it is cut, and the model is saved in time."""
    plain = PackedDataset.__getitems__

    def slow(self, indices):
        if self.folder.name == "validation":
            time.sleep(0.3)
        return plain(self, indices)

    monkeypatch.setattr(PackedDataset, "__getitems__", slow)
    started = time.monotonic()
    result = train(small(train__max_minutes=0.08, train__eval_steps=0, train__micro_batch=1), rows, run_name="late")
    assert time.monotonic() - started < 0.08 * 60
    assert result.validation_loss is not None and (result.model / "config.json").is_file()


@pytest.mark.slow
def test_accumulated_micro_batches_give_the_losses_of_one_whole_batch(rows: Artifacts) -> None:
    losses = []
    for micro in (8, 2):
        config = small(
            train__max_steps=4, train__batch_tokens=256, train__micro_batch=micro, train__gradient_accumulation="auto"
        )
        result = train(config, rows)
        losses.append([line["loss"] for line in read_lines(rows.run(result.run).metrics)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.slow
def test_workers_change_nothing(rows: Artifacts) -> None:
    losses = []
    for workers in (0, 2):
        result = train(small(train__max_steps=3, train__workers=workers), rows)
        losses.append([line["loss"] for line in read_lines(rows.run(result.run).metrics)])
    assert losses[0] == losses[1]


def test_a_name_that_exists_is_refused(done) -> None:
    with pytest.raises(UsageError, match="done") as caught:
        train(small(train__max_steps=1), done[0], run_name="done")
    assert "--resume done" in caught.value.hint


def test_rows_prepared_with_other_settings_are_named(rows: Artifacts) -> None:
    with pytest.raises(ConfigError, match="sequence_length"):
        train(small(data__sequence_length=64), rows)


def test_an_unknown_size_optimizer_or_trainer_key_is_a_config_error(rows: Artifacts) -> None:
    for values in ({"model__size": "huge"}, {"train__optimizer": "magic"}, {"trainer": {"no_such_key": 1}}):
        with pytest.raises(ConfigError):
            train(small(train__max_steps=1, **values), rows)


def test_a_tracker_that_is_not_installed_is_named(rows: Artifacts) -> None:
    with pytest.raises(MissingDependencyError, match="mlflow"):
        train(small(train__max_steps=1, tracking__report_to="mlflow"), rows)


@pytest.mark.slow
def test_a_base_continues_and_one_with_another_tokenizer_is_refused(done, tmp_path) -> None:
    artifacts, result, _ = done
    with pytest.raises(ModelError, match="tokenizer"):
        train(small(train__max_steps=1, model__base=str(make_model(tmp_path / "other"))), artifacts)
    continued = train(small(train__max_steps=3, model__base=str(result.model), model__layers=None), artifacts)
    assert continued.validation_loss == pytest.approx(result.validation_loss, abs=0.1)
    assert json.loads(artifacts.run(continued.run).record.read_text())["base"] == str(result.model)


def test_a_run_that_is_refused_before_it_begins_leaves_no_folder(rows: Artifacts) -> None:
    with pytest.raises(ConfigError, match="huge"):
        train(small(model__size="huge"), rows, run_name="refused")
    assert not rows.run("refused").path.exists()
    with pytest.raises(ConfigError, match="no optimizer 'adamx'") as unknown:
        train(small(train__max_steps=1, train__optimizer="adamx"), rows, run_name="refused")
    assert "adamw" in unknown.value.hint and not rows.run("refused").path.exists()


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_an_optimizer_whose_package_is_missing_is_named_and_leaves_no_folder(rows: Artifacts) -> None:
    with pytest.raises(MissingDependencyError, match="bitsandbytes"):
        train(small(train__max_steps=1, train__optimizer="adamw_8bit"), rows, run_name="refused")
    assert not rows.run("refused").path.exists()


def test_a_name_that_differs_from_a_runs_by_capitals_alone_is_refused(done) -> None:
    """macOS and Windows have one folder for both."""
    with pytest.raises(UsageError, match="There is already a run named 'done'"):
        train(small(train__max_steps=1), done[0], run_name="Done")
