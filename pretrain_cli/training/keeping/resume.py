"""Which run goes on, with which settings, from which checkpoint?"""

from __future__ import annotations

import tomllib
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed, flatten
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, DataError, ModelError
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.keeping.record import read_record
from pretrain_cli.training.result import TrainResult

BUDGET = ("train.max_steps", "train.epochs", "train.max_tokens", "train.max_minutes")
FREE = (
    *BUDGET,
    "train.micro_batch",
    "train.gradient_accumulation",
    "train.workers",
    "train.threads",
    "train.save_steps",
    "train.eval_steps",
    "train.eval_rows",
    "train.logging_steps",
    "train.keep",
    "train.on_divergence",
    "train.early_stopping",
    "train.sample_prompts",
    "train.device",
    "train.processes",
    "train.shard_model",
)
"""Keys under [train] that may change on a resume: they leave the course of the weights as it is, up to rounding."""
SHAPING = ("model.", "train.", "trainer")


def find_run(resume: str, artifacts: Artifacts) -> tuple[RunFolder, str | None]:
    """The run, and the checkpoint asked for, of "", "RUN", "RUN@step-000100" or "@step-000100".

    Raises:
        ModelError: there is no such run.
    """
    name, _, checkpoint = resume.partition("@")
    if not name:
        names = artifacts.run_names()
        if not names:
            raise ModelError(f"No run to resume in {artifacts.root}.", "Start one: ptk train")
        name = names[-1]
    return artifacts.existing_run(name), checkpoint or None


def read_config(run: RunFolder) -> Config:
    """The config that the run was started with.

    Raises:
        ModelError: it isn't there or is damaged.
    """
    try:
        return Config.model_validate(tomllib.loads(run.config.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{run.config} can't be read: {error}.", "Start a new run: ptk train") from error


def result_of(run: RunFolder, config: Config) -> TrainResult | None:
    """The result of a run that is finished and isn't asked to go on longer."""
    record = read_record(run)
    saved = record.get("result")
    if record.get("status") != "finished" or not saved or not run.model.is_dir():
        return None
    before, after = dict(flatten(read_config(run))), dict(flatten(config))
    if any(before[key] != after[key] for key in BUDGET):
        return None
    return TrainResult(**{**saved, "model": run.model})


def settled(
    config: Config, plan: Plan, precision: str, manifest: dict[str, Any], compiled: bool | None = None
) -> Config:
    """``config`` with what was chosen in place of `auto`, so that a resume, or another run of it, chooses the same.

    The accumulation goes back to auto: it follows from the batch, on any number of processes.
    """
    rows = manifest.get("settings", {})
    values: dict[str, Any] = {
        "data__sequence_length": rows.get("sequence_length", config.data.sequence_length),
        "data__packing": rows.get("packing", config.data.packing),
        "model__size": plan.shape.name if plan.shape else config.model.size,
        "train__precision": precision,
        "train__batch_tokens": plan.batch_tokens,
        "train__micro_batch": plan.micro_batch,
        "train__gradient_accumulation": "auto",
        "train__optimizer": plan.optimizer,
        "train__learning_rate": plan.rates.main,
        "train__matrix_learning_rate": plan.rates.matrix,
        "train__embedding_learning_rate": plan.rates.embedding,
        "train__adam_beta1": plan.rates.beta1,
        "train__schedule": plan.schedule,
        "train__warmup_steps": plan.warmup_steps,
        "train__logging_steps": plan.logging_every,
    }
    if not any(dict(flatten(config))[key] for key in BUDGET):
        values |= {"train__max_steps": plan.steps, "train__max_minutes": plan.seconds and plan.seconds / 60}
    if compiled is not None:
        values["train__compile"] = compiled
    return changed(config, **values)


def merge(started_with: Config, now: Config) -> Config:
    """The run's own config with what the user changed now; what isn't given now stays as it was.

    Raises:
        ConfigError: a change that would make another training; it is named.
    """
    default, before = dict(flatten(Config())), dict(flatten(started_with))
    given = {key: value for key, value in flatten(now) if value != default[key] and value != before[key]}
    wrong = [key for key in given if key.startswith(SHAPING) and key not in FREE]
    if wrong:
        key = wrong[0]
        raise ConfigError(
            f"The run was started with {key} = {before[key]!r}, now it is {given[key]!r}.",
            "A resume goes on with the same training: leave it, or start a new run with --run NAME.",
        )
    values: dict[str, Any] = {key.replace(".", "__"): value for key, value in given.items() if key != "trainer"}
    if any(key in given for key in BUDGET):
        values = {key.replace(".", "__"): None for key in BUDGET} | values
    return changed(started_with, **values)


def check_unchanged(before: dict[str, Any], now: dict[str, Any], run: RunFolder) -> None:
    """Prepared data, tokenizer and batch are those of the checkpoint.

    Raises:
        DataError: something differs; it is named.
    """
    for key, value in before.items():
        if key in now and now[key] != value:
            raise DataError(
                f"Run '{run.name}' was trained with {key.replace('_', ' ')} {value}, now it is {now[key]}.",
                "Bring back what it was trained with (prepare the same text again), or start a new run.",
            )
