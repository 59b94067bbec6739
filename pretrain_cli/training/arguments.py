"""Turns the config and the plan into transformers' TrainingArguments."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import torch
from accelerate import PartialState
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from pretrain_cli.errors import ConfigError, MissingDependencyError, PtkError, first_line
from pretrain_cli.model.devices import make_current
from pretrain_cli.optional import fault_of, to_install
from pretrain_cli.small_files import small_text
from pretrain_cli.training.choices.kernels import liger_config
from pretrain_cli.training.choices.optimizer_bytes import PROJECTED, library_of
from pretrain_cli.training.choices.plan import Plan
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.processes.agreement import world_size
from pretrain_cli.training.processes.sharding import be_one_of_one

ENDLESS_STEPS = 1_000_000_000
"""Steps of a run that the clock ends."""
IN_FILES = ("accelerator_config", "fsdp_config", "deepspeed")
"""Arguments that may name a JSON file; a text that begins with { is the JSON itself."""
PACKAGE = Path(__file__).parents[1]


def _check_optimizer(plan: Plan, kind: str) -> None:
    """Refuse an optimizer that wouldn't run here.

    Raises:
        MissingDependencyError: its package isn't installed.
        ConfigError: it needs a GPU, or whole layers.
    """
    name = plan.optimizer
    package, install = library_of(name)
    if package and (why := fault_of(package)):
        broken = f", which {why}" if "imported" in why else ""
        raise MissingDependencyError(
            f"The optimizer '{name}' needs the package {package}{broken}.", f"Install it: {install}"
        )
    if kind != "cuda" and ("paged" in name or name == "galore_adamw_8bit"):
        other = "galore_adamw" if "galore" in name else name.removeprefix("paged_").replace("adamw_32bit", "adamw")
        raise ConfigError(f"The optimizer '{name}' needs an NVIDIA GPU.", f"Use --set train.optimizer={other}")
    if name.startswith(PROJECTED) and plan.method.adapter:
        raise ConfigError(
            f"The optimizer '{name}' projects the gradients of whole layers, which LoRA doesn't train.",
            "Leave train.optimizer at auto, or use --method full.",
        )


def make_arguments(context: TrainingContext, report_to: list[str]) -> TrainingArguments:
    """Trainer's arguments; ``[trainer]`` adds those that ptk has no key for.

    Raises:
        MissingDependencyError: DeepSpeed is asked for and isn't installed.
        ConfigError: an unknown optimizer or ``[trainer]`` key, or a launcher whose processes didn't come together.
    """
    config, plan, machine = context.config, context.plan, context.machine
    train, kind = config.train, torch.device(machine.device).type
    derived: dict[str, Any] = {
        "output_dir": str(context.run.checkpoints),
        "per_device_train_batch_size": plan.micro_batch,
        "per_device_eval_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "max_steps": plan.steps or ENDLESS_STEPS,
        "learning_rate": plan.rates.main,
        "weight_decay": train.weight_decay,
        "adam_beta1": plan.rates.beta1,
        "adam_beta2": plan.rates.beta2,
        "max_grad_norm": train.max_grad_norm,
        "optim": "adamw_torch" if plan.optimizer in ("adamw", "muon") else plan.optimizer,
        # A sharded model has bf16 weights gathered for it, and needs no autocast.
        "bf16": machine.precision == "bf16" and not (train.shard_model and context.world_size > 1),
        "fp16": machine.precision == "fp16",
        "use_cpu": kind == "cpu",
        "seed": train.seed,
        "data_seed": train.seed,
        "ddp_broadcast_buffers": False,  # nothing changes them
        "ddp_find_unused_parameters": False,
        "activation_checkpointing": plan.gradient_checkpointing,
        "use_liger_kernel": context.kernels.liger.value,
        "liger_kernel_config": liger_config(context.model.config) if context.kernels.liger.value else None,
        # This trainer decides itself what is logged, validated and saved.
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": report_to or "none",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
        "ignore_data_skip": True,  # the row order computes its position
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": kind == "cuda",
    }
    if plan.optimizer.startswith(PROJECTED):
        derived["optim_target_modules"] = "all-linear"
    known = [each.value for each in OptimizerNames]
    if derived["optim"] not in known:
        nearest = difflib.get_close_matches(plan.optimizer, ["muon", "adamw", *known], n=1)
        raise ConfigError(
            f"There is no optimizer '{plan.optimizer}'.",
            f"Did you mean {nearest[0]}?" if nearest else "Use adamw, muon, or a name of transformers' Trainer.",
        )
    if config.trainer.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError("[trainer] deepspeed needs the package deepspeed.", to_install("deepspeed"))
    if config.trainer.get("deepspeed") and world_size() == 1:
        be_one_of_one(os.environ)
    _check_optimizer(plan, kind)
    _check_types(config.trainer)
    with trainer_refusals(config.trainer):
        arguments = TrainingArguments(**{**derived, **_read_settings(config.trainer)})
        device_found = arguments.device
    if arguments.world_size != world_size():
        raise ConfigError(
            f"The launcher announced {world_size()} processes, torch sees {arguments.world_size}.",
            "Start with torchrun; `accelerate launch --cpu` runs one process whatever it is told.",
        )
    if device_found.type == "cuda" and arguments.world_size == 1:
        arguments._n_gpu = 1  # else Trainer would take all GPUs through DataParallel
    _place_on(arguments, machine.device)
    return arguments


def _read_settings(given: Mapping[str, object]) -> dict[str, object]:
    """What is under ``[trainer]``, with the JSON files read that it names: transformers would read a device for ever.

    Raises:
        ConfigError: one can't be read, or is no file.
    """
    read: dict[str, object] = {}
    for key, value in given.items():
        if key in IN_FILES and isinstance(value, str) and value and not value.lstrip().startswith("{"):
            try:
                read[key] = json.loads(small_text(Path(value)))
            except (OSError, ValueError, RecursionError) as error:
                raise ConfigError(f"[trainer] {key} = {value} can't be read: {error}.", "Name a JSON file.") from error
    return {**given, **read}


def _check_types(given: Mapping[str, object]) -> None:
    """Refuse values that aren't of the type that transformers states: many would fail in the middle of training only.

    Raises:
        ConfigError: one isn't.
    """
    kinds = get_type_hints(TrainingArguments)
    for key, value in given.items():
        if key not in kinds:
            continue
        kind = TypeAdapter(kinds[key], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            read = kind.validate_python(value)
            refused = "" if isinstance(read, str) or not isinstance(value, str) or isinstance(read, Enum) else "a text"
        except ValidationError as error:
            refused = error.errors()[0]["msg"]
        if refused:
            raise ConfigError(f"trainer.{key} can't be {value!r}: {refused}.", "See transformers' TrainingArguments.")


@contextlib.contextmanager
def blaming(given: Mapping[str, object]) -> Iterator[None]:
    """Say of an error inside a library that the keys that the user has ``given`` to Trainer may be the cause.

    Raises:
        ConfigError: a library fails on a value.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, NotImplementedError) as error:
        file = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not given or PACKAGE in file.parents:
            raise
        raise ConfigError(
            f"Training failed in {file.name} of a library: {type(error).__name__}: {first_line(error)}.",
            f"Try without the keys under [trainer]: {', '.join(given)}. If it fails then too, please report it.",
        ) from error


@contextlib.contextmanager
def trainer_refusals(given: Mapping[str, object]) -> Iterator[None]:
    """Say of what transformers and accelerate refuse that it is among the keys that the user has ``given`` to them.

    Raises:
        ConfigError: they refuse a value, or a package that it needs isn't there.
    """
    try:
        yield
    except (PtkError, MemoryError):
        raise
    except Exception as error:  # each argument has its own
        if not given and not isinstance(error, (TypeError, ValueError)):
            raise
        raise ConfigError(
            f"transformers refuses the training arguments: {first_line(error)}.",
            f"Check the keys under [trainer]: {', '.join(given)}." if given else "Check train.optimizer.",
        ) from error


def _place_on(arguments: TrainingArguments, device: str) -> None:
    """Let Trainer and accelerate take the GPU that was asked for by its number: they take the first one."""
    place = torch.device(device)
    if place.index is not None:
        arguments.__dict__["_setup_devices"] = place  # a cached property
        PartialState().device = place
        make_current(device)
