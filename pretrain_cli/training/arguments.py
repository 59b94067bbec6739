"""Turns the config and the plan into transformers' TrainingArguments."""

from __future__ import annotations

import difflib
import importlib.util
import os
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from pretrain_cli.errors import ConfigError, MissingDependencyError, first_line
from pretrain_cli.training.choices.kernels import liger_config
from pretrain_cli.training.context import TrainingContext
from pretrain_cli.training.processes.agreement import world_size
from pretrain_cli.training.processes.sharding import be_one_of_one

ENDLESS_STEPS = 1_000_000_000
"""Steps of a run that the clock ends."""


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
        "adam_beta2": train.adam_beta2,
        "max_grad_norm": train.max_grad_norm,
        "optim": "adamw_torch" if plan.optimizer in ("adamw", "muon") else plan.optimizer,
        "bf16": machine.precision == "bf16",
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
    known = [each.value for each in OptimizerNames]
    if derived["optim"] not in known:
        nearest = difflib.get_close_matches(plan.optimizer, ["muon", "adamw", *known], n=1)
        raise ConfigError(
            f"There is no optimizer '{plan.optimizer}'.",
            f"Did you mean {nearest[0]}?" if nearest else "Use adamw, muon, or a name of transformers' Trainer.",
        )
    if config.trainer.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError("[trainer] deepspeed needs the package deepspeed.", "pip install deepspeed")
    if config.trainer.get("deepspeed") and world_size() == 1:
        be_one_of_one(os.environ)
    try:
        arguments = TrainingArguments(**{**derived, **config.trainer})
        device_found = arguments.device
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"transformers refuses the training arguments: {first_line(error)}",
            "Check train.optimizer, and the keys under [trainer].",
        ) from error
    if arguments.world_size != world_size():
        raise ConfigError(
            f"The launcher announced {world_size()} processes, torch sees {arguments.world_size}.",
            "Start with torchrun; `accelerate launch --cpu` runs one process whatever it is told.",
        )
    if device_found.type == "cuda" and arguments.world_size == 1:
        arguments._n_gpu = 1  # else Trainer would take all GPUs through DataParallel
    return arguments
