"""Shards a model over several processes (FSDP2), saves the shards, and puts them together again in any layout.

torch's own `fully_shard` (Zhao et al. 2023, arXiv 2304.11277), on CPUs over gloo as on GPUs over NCCL; transformers'
Trainer is told that the model comes sharded, and leaves it so. Checkpoints go through torch.distributed.checkpoint,
which reads a tensor's shards back whatever the number of processes was.
"""

from __future__ import annotations

import json
import pickle
import socket
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from pretrain_cli.artifacts import SHARDS
from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.model.load import runs_own_code
from pretrain_cli.processes import world_size
from pretrain_cli.small_files import small_text
from pretrain_cli.training.processes.agreement import group, rank
from pretrain_cli.training.processes.shard_reading import PlainPlanner, PlainReader

WEIGHTS_SHARDED = 3
"""The stage of DeepSpeed's ZeRO that shards the weights too (Rajbhandari et al. 2020, arXiv 1910.02054)."""
ACCELERATES_OWN = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG")


def refuse_other_sharding(trainer: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Refuse accelerate's own ways to split a model: on a CPU they silently don't, and their checkpoints are sharded.

    Args:
        trainer: the config's ``[trainer]``.
        environ: of this process; `accelerate launch` says there what it was told.

    Raises:
        ConfigError: one is.
    """
    asked = [f"[trainer] {key}" for key in ("fsdp_config", "parallelism_config") if trainer.get(key)]
    asked += [name for name in ACCELERATES_OWN if _on(name, environ)]
    if not trainer.get("deepspeed") and _on("ACCELERATE_USE_DEEPSPEED", environ):
        raise ConfigError(
            "accelerate launch asks for DeepSpeed, and the config doesn't.",
            "Name DeepSpeed's own file in the config: --set trainer.deepspeed=FILE.json",
        )
    if asked:
        raise ConfigError(
            f"{asked[0]} asks accelerate to split the model; ptk does that itself, so that checkpoints stay whole.",
            "Leave it out, and use --shard-model.",
        )


def _on(name: str, environ: Mapping[str, str]) -> bool:
    return environ.get(name, "").lower() in ("1", "true", "yes")


def zero_stage(trainer: Mapping[str, Any]) -> int | None:
    """The stage of ZeRO that ``[trainer] deepspeed`` names, a file or the settings themselves; None without it.

    Raises:
        ConfigError: the file isn't there, or isn't JSON.
    """
    named = trainer.get("deepspeed")
    if not named:
        return None
    try:
        settings = named if isinstance(named, Mapping) else json.loads(small_text(Path(named)))
        return int(settings.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"[trainer] deepspeed = {named} can't be read: {error}.", "Name a JSON file of DeepSpeed's settings."
        ) from error


def be_one_of_one(environ: MutableMapping[str, str]) -> None:
    """Tell DeepSpeed that this process is alone: where a launcher's variables are missing it looks for MPI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in alone.items():
        environ.setdefault(name, value)


def check_zero_layout(trainer: Mapping[str, Any], before: int, now: int) -> None:
    """DeepSpeed's ZeRO checkpoints resume only on as many processes as wrote them.

    Raises:
        ConfigError: there are ``now``, and there were ``before``.
    """
    if before != now and zero_stage(trainer):
        raise ConfigError(
            f"DeepSpeed's checkpoints resume only on as many processes as wrote them: {before}, not {now}.",
            f"Start {before} processes: --processes {before}",
        )


def shard(model: PreTrainedModel, device_type: str, processes: int, precision: str = "fp32") -> float:
    """Shard the parameters of ``model`` over ``processes``, layer by layer, in place.

    In bf16 each layer's weights are gathered in bf16 and gradients summed in fp32. Autocast would keep a bf16 copy of
    nearly every layer until the backward pass.

    Args:
        model: any, in one piece.
        device_type: "cpu", or a GPU's.
        processes: over how many.
        precision: see `train.precision`.

    Returns:
        The share of all weights that this process holds afterwards.

    Raises:
        ConfigError: they are not sharded after that.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device_type, (processes,))
    in_bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = in_bf16 if precision.startswith("bf16") else MixedPrecisionPolicy()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = layers_of(model)
    if not layers:
        raise ConfigError("This architecture has no list of layers to shard by.", "Train without --shard-model.")
    # A head that is the embedding too is needed from first to last: it stays in the outermost group.
    apart = not model.config.tie_word_embeddings
    for part in (*([embedding] if apart else ()), *layers):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    if apart:  # the backward pass begins with it: it isn't gathered twice
        fully_shard(head, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    # What transformers sets on a model that it has sharded itself: Trainer then adds no wrapper.
    model._is_distributed_loading_by_transformers = True
    model._is_fsdp_managed_module = True
    return check_share(model)


def check_share(model: PreTrainedModel) -> float:
    """The share of all weights that this process holds of a sharded ``model``.

    Raises:
        ConfigError: they are not sharded.
    """
    weights, processes = list(model.parameters()), world_size()
    held = sum(_local(weight).numel() for weight in weights)
    share: float = held / sum(weight.numel() for weight in weights)
    if not all(isinstance(weight, DTensor) for weight in weights) or share > 1.5 / processes + 0.05:
        raise ConfigError(
            f"The model isn't sharded: this process holds {share:.0%} of its weights.", "Train without --shard-model."
        )
    return share


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds only its own shard of the weights."""
    return bool(getattr(model, "_is_fsdp_managed_module", False))


def split_by_deepspeed(model: nn.Module) -> bool:
    """Whether DeepSpeed holds the weights: it marks each one."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


def whole_model(model: PreTrainedModel, weights: dict[str, Any] | None = None) -> PreTrainedModel:
    """A plain copy on the CPU with all weights, on rank 0; the other processes only help, and get None.

    Args:
        model: sharded.
        weights: all of them by name, where another library has put them together.
    """
    if weights is None and is_sharded(model):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(model, options=options)
    if not weights:
        return None
    plain = _unsharded(model).to(next(iter(weights.values())).dtype)
    lacking = plain.load_state_dict(weights, strict=False).missing_keys
    plain.tie_weights()
    if lacking and not (plain.config.tie_word_embeddings and lacking == ["lm_head.weight"]):
        raise ModelError(f"The shards of the model lack {lacking[0]}.", "This is a bug in ptk: please report it.")
    return plain


def _unsharded(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same kind with random weights, by this process alone."""
    if split_by_deepspeed(model):
        return type(model)(model.config)  # from_config would share it out again, and wait for the others
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(  # sharding has changed the model's own class
        model.config, trust_remote_code=runs_own_code(model.config)
    )


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and optimizer state by name, of each the shard that this process holds."""
    weights, state = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": state}


def save_shards(folder: Path, state: dict[str, Any]) -> None:
    """Write what `state_of` gave, or a copy of it, into ``folder``, every process its own shard.

    Raises:
        Exception: what this process, or else another one, failed with: `CheckpointException` isn't an `Exception`, and
            so isn't seen by what catches those.
    """
    try:
        save(state, checkpoint_id=folder / SHARDS, process_group=group())
    except CheckpointException as error:
        causes = {number: cause for number, (cause, _) in error.failures.items()}
        first = next(iter(causes.values()), RuntimeError(f"The shards couldn't be written: {error}"))
        raise causes.get(rank(), first) from error


def load_any(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read weights and optimizer state of checkpoint ``folder``, sharded or whole, into any layout."""
    if (folder / SHARDS).is_dir():
        state = state_of(model, optimizer)
        _read_shards(folder / SHARDS, state)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        return
    from transformers import AutoModelForCausalLM

    whole = StateDictOptions(full_state_dict=True)
    set_model_state_dict(
        model, AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).state_dict(), options=whole
    )
    saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    set_optimizer_state_dict(model, optimizer, _by_name(saved, model, optimizer), options=whole)


def _read_shards(folder: Path, into: dict[str, Any]) -> None:
    """Fill the weights and the state ``into`` from the shards in ``folder``."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process reads all
            load(into, storage_reader=PlainReader(folder), planner=PlainPlanner())
    except (CheckpointException, pickle.UnpicklingError, OSError, EOFError) as error:
        raise ModelError(
            f"The shards in {folder} hold something else than a checkpoint's tensors: they were not loaded.",
            "Use a checkpoint that this machine wrote, or start a new run: ptk train",
        ) from error


def _by_name(saved: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state by parameter names instead of numbers."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_number: dict[int, str] = {}
    groups = []
    for values, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        here = [names[id(parameter)] for parameter in own["params"]]
        by_number.update(zip(values["params"], here, strict=True))
        groups.append({**values, "params": here})
    state = {by_number[number]: values for number, values in saved["state"].items()}
    return {"state": state, "param_groups": groups}


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers: the list of modules that holds most of the weights; empty for a model without lists."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()), default=()))


def _local(weight: torch.Tensor) -> torch.Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
