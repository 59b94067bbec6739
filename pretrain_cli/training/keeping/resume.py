"""Finds the run to resume, its settings, and whether they may change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import TRUST, changed, flatten, given
from pretrain_cli.config.model import TRAINER_KEYS, Config
from pretrain_cli.errors import ConfigError, DataError, ModelError
from pretrain_cli.manifest_records import RowLayout
from pretrain_cli.run_record import RunRecord, TrainResult, parse_run_config
from pretrain_cli.storage import read_lines
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.keeping.state import RunState, Settings

BUDGET = ("train.max_steps", "train.epochs", "train.max_tokens", "train.max_minutes")
FREE = (
    TRUST,
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
    "train.on_sigusr1",
    "train.early_stopping",
    "train.sample_prompts",
    "train.device",
    "train.processes",
    "train.shard_model",
)
"""Keys that may change on a resume: the weights come out the same, up to rounding."""
MODEL = "model_config"
"""In a checkpoint's settings: what the base's config.json makes of the weights."""
NOT_COMPUTED_BY = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "architectures")
RESTORE_BASE = "Restore the base's files, or start a new run."
SHAPING = ("model.", "train.", "trainer", "data.stages")


@dataclass(frozen=True)
class Resumed:
    """The run that is resumed, and the checkpoint that was asked for, if one was."""

    run: RunFolder
    checkpoint: str | None


@dataclass(frozen=True)
class StartingPoint:
    """Where training begins: a checkpoint (None: the beginning) and the run's state there."""

    checkpoint: Path | None
    state: RunState


def find_run(resume: str, artifacts: Artifacts) -> Resumed:
    """What "", "RUN", "RUN@step-000100" or "@step-000100" names.

    Raises:
        ModelError: there is no such run.
    """
    name, _, checkpoint = resume.partition("@")
    if not name:
        names = artifacts.run_names()
        if not names:
            raise ModelError(f"There is no run to resume in {artifacts.root}.", "Start one: ptk train")
        name = names[-1]
    return Resumed(artifacts.existing_run(name), checkpoint or None)


def read_config(run: RunFolder) -> Config:
    """The config that the run was started with, without what only the user of this command may decide.

    That is whether a base's own code runs, whom under the user's login the model or the metrics are sent to, and where
    else files are written. Of what ptk sets itself, a run that ptk wrote has nothing there.

    Raises:
        ModelError: it isn't there or is damaged.
    """
    try:
        config = Config.model_validate(parse_run_config(run))
        staying = _staying(config.trainer)
        return changed(config, model__trust_remote_code=False, tracking__entity="", trainer=staying)
    except ValueError as error:
        raise ModelError(f"{run.config} can't be read: {error}.", "Start a new run: ptk train") from error


def _sends(key: str) -> bool:
    """Whether a key under [trainer] lets transformers send something under the user's login."""
    return key.startswith(("hub_", "push_to_hub", "trackio_"))


def _staying(trainer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trainer.items() if not _sends(key) and key not in TRAINER_KEYS}


def result_of(run: RunFolder, record: RunRecord | None, config: Config) -> TrainResult | None:
    """The result of a run that is finished and isn't asked to train longer."""
    if record is None or record.status != "finished" or record.result is None or not run.model.is_dir():
        return None
    before, after = dict(flatten(read_config(run))), dict(flatten(config))
    if any(before[key] != after[key] for key in BUDGET):
        return None
    return replace(record.result, model=run.model)


def refuse_lost_checkpoints(run: RunFolder, record: RunRecord | None) -> None:
    """Start no run again from its beginning whose records say that it saved checkpoints, or finished.

    Raises:
        ModelError: they do: the folder of checkpoints was removed, or isn't mounted.
    """
    if record is None:
        return
    ended = record.steps if record.status in ("finished", "interrupted", "diverged") else 0
    saved = max(record.checkpoint_step, ended, record.result.steps if record.result is not None else 0)
    every = record.plan.save_every if record.plan is not None else None
    logged = max((line["step"] for line in read_lines(run.metrics)), default=0)
    recorded = "checkpoint_step" in record.model_fields_set  # early records don't have it
    if not saved and not recorded and every and logged > every:
        saved = logged // every * every
    if saved:
        raise ModelError(
            f"Run '{run.name}' has trained {saved:,} steps, but {run.checkpoints} holds no checkpoint.",
            "Restore or mount that folder, or start a new run: ptk train",
        )


def settled(config: Config, plan: Plan, precision: str, layout: RowLayout, compiled: bool | None = None) -> Config:
    """``config`` with what was chosen instead of ``auto``, so that a resume, or another run of it, chooses the same.

    The accumulation returns to auto: it follows from the batch, on any number of processes.
    """
    values: dict[str, Any] = {
        "data__sequence_length": layout.sequence_length,
        "data__packing": layout.packing or config.data.packing,
        "model__size": plan.shape.name if plan.shape else config.model.size,
        "train__precision": precision,
        "train__method": plan.method.name,
        "train__lora_rank": plan.method.rank or config.train.lora_rank,
        "train__batch_tokens": plan.batch_tokens,
        "train__micro_batch": plan.micro_batch,
        "train__gradient_accumulation": "auto",
        "train__optimizer": plan.optimizer,
        "train__learning_rate": plan.rates.main,
        "train__matrix_learning_rate": plan.rates.matrix,
        "train__embedding_learning_rate": plan.rates.embedding,
        "train__adam_beta1": plan.rates.beta1,
        "train__adam_beta2": plan.rates.beta2,
        "train__schedule": plan.schedule,
        "train__warmup_steps": plan.warmup_steps,
        "train__ensemble": plan.ensemble,
        "train__logging_steps": plan.logging_every,
    }
    if not any(dict(flatten(config))[key] for key in BUDGET):
        values |= {"train__max_steps": plan.steps, "train__max_minutes": plan.seconds and plan.seconds / 60}
    if compiled is not None:
        values["train__compile"] = compiled
    return changed(config, **values)


def merge(started_with: Config, now: Config) -> Config:
    """The run's own config with what the user changes now; what isn't given now stays as it was.

    What is given counts, be it the default. "auto" leaves to the run what may not change: it has chosen already.

    Raises:
        ConfigError: a change that would make it another training; it is named.
    """
    before, set_now = dict(flatten(started_with)), given(now)
    sent = {key: value for key, value in now.trainer.items() if _sends(key)}
    if "trainer" in set_now:
        now = changed(now, trainer=_staying(now.trainer))
    changes = {key: value for key, value in flatten(now) if key in set_now and value != before[key]}
    kept = {key for key in changes if key.startswith(SHAPING) and key not in FREE}
    changes = {key: value for key, value in changes.items() if key not in kept or value not in ("auto", {})}
    if wrong := [key for key in changes if key in kept]:
        key = wrong[0]
        raise ConfigError(
            f"The run was started with {key} = {before[key]!r}; now it is {changes[key]!r}.",
            "A resume continues the same training: leave the key as it was, or start a new run with --run NAME.",
        )
    values: dict[str, Any] = {key.replace(".", "__"): value for key, value in changes.items() if key != "trainer"}
    if any(key in changes for key in BUDGET):
        values = {key.replace(".", "__"): None for key in BUDGET} | values
    if sent:
        values["trainer"] = {**started_with.trainer, **sent}
    return changed(started_with, **values)


def check_unchanged(before: Settings, now: Settings, run: RunFolder) -> None:
    """Prepared data, tokenizer and batch are those of the checkpoint.

    Raises:
        DataError: something differs; it is named.
        ModelError: the base's config differs.
    """
    if MODEL in before and (changed_key := _changed(str(before[MODEL]), str(now[MODEL]))):
        raise ModelError(
            f"Run '{run.name}' was trained with another {changed_key} in the base's config than it has now.",
            RESTORE_BASE,
        )
    for key, value in before.items():
        if key in now and now[key] != value and key != MODEL:
            raise DataError(
                f"Run '{run.name}' was trained with {key.replace('_', ' ')} {value}; now it is {now[key]}.",
                RESTORE_BASE
                if key == "base_weights"
                else "Restore what it was trained with (prepare the same text again), or start a new run.",
            )


def model_settings(config: Mapping[str, Any]) -> str:
    """What a model with this ``config`` computes by, as JSON. A base's files may change while a run rests."""
    return json.dumps(config, sort_keys=True, default=str)


def _changed(before: str, now: str) -> str:
    """The first of the settings that both have and that differs; empty for none. Newer libraries may have more."""
    earlier, later = json.loads(before), json.loads(now)
    return next((key for key in _common(earlier, later) if not _agree(earlier[key], later[key])), "")


def _agree(before: Any, now: Any) -> bool:
    """Whether two settings are the same in what both have."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_agree(before[key], now[key]) for key in _common(before, now))
    return bool(before == now)


def _common(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [key for key in before if key in now and key not in NOT_COMPUTED_BY]
