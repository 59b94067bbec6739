"""How is a model held in parts by several processes (FSDP2), saved in parts, and put together again in any layout?

torch's own `fully_shard` (Zhao et al. 2023, arXiv 2304.11277), on CPUs over gloo as on GPUs over NCCL; transformers'
Trainer is told that the model comes sharded, and leaves it so. Checkpoints go through torch.distributed.checkpoint,
which reads a tensor's parts back whatever the number of processes was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
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

from pretrain_cli.errors import ConfigError, ModelError

PARTS = "sharded"
"""Folder of a checkpoint that was saved in parts."""


def shard(model: Any, device_type: str, processes: int) -> float:
    """Share the parameters of ``model`` out over ``processes``, layer by layer, in place.

    Returns:
        The share of all weights that this process holds now.

    Raises:
        ConfigError: they aren't in parts after that.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device_type, (processes,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # What transformers sets on a model that it has sharded itself: Trainer then adds no wrapper of its own.
    model._is_distributed_loading_by_transformers = True
    model._is_fsdp_managed_module = True
    weights = list(model.parameters())
    own = sum(_local(weight).numel() for weight in weights)
    share: float = own / sum(weight.numel() for weight in weights)
    if not all(isinstance(weight, DTensor) for weight in weights) or share > 1.5 / processes + 0.05:
        raise ConfigError(
            f"The model isn't sharded: this process holds {share:.0%} of its weights.", "Train without --shard-model."
        )
    return share


def is_sharded(model: Any) -> bool:
    """Whether this process holds only parts of the weights."""
    return bool(getattr(model, "_is_fsdp_managed_module", False))


def whole_model(model: Any) -> Any:
    """A plain copy on the CPU with all weights, on rank 0; the other processes only help, and get None."""
    from transformers import AutoModelForCausalLM

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    if not weights:
        return None
    plain = AutoModelForCausalLM.from_config(model.config).to(next(iter(weights.values())).dtype)
    lacking = plain.load_state_dict(weights, strict=False).missing_keys
    plain.tie_weights()
    if lacking and not (plain.config.tie_word_embeddings and lacking == ["lm_head.weight"]):
        raise ModelError(f"The parts of the model lack {lacking[0]}.", "This is a bug in ptk: please report it.")
    return plain


def save_parts(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Write weights and optimizer state into ``folder``, every process its own part."""
    weights, state = get_state_dict(model, optimizer)
    save({"model": weights, "optimizer": state}, checkpoint_id=folder / PARTS)


def load_any(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Read weights and optimizer state of checkpoint ``folder``, saved in parts or whole, into any layout."""
    if (folder / PARTS).is_dir():
        weights, state = get_state_dict(model, optimizer)
        load({"model": weights, "optimizer": state}, checkpoint_id=folder / PARTS)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        return
    from transformers import AutoModelForCausalLM

    whole = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, AutoModelForCausalLM.from_pretrained(folder).state_dict(), options=whole)
    saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    set_optimizer_state_dict(model, optimizer, _by_name(saved, model, optimizer), options=whole)


def _by_name(saved: dict[str, Any], model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state by parameter names in place of numbers."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_number: dict[int, str] = {}
    groups = []
    for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        here = [names[id(parameter)] for parameter in own["params"]]
        by_number.update(zip(group["params"], here, strict=True))
        groups.append({**group, "params": here})
    state = {by_number[number]: values for number, values in saved["state"].items()}
    return {"state": state, "param_groups": groups}


def _layers(model: Any) -> nn.ModuleList:
    """The decoder's layers: the list of modules that holds most of the weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ConfigError("This architecture has no list of layers to shard by.", "Train without --shard-model.")
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))


def _local(weight: torch.Tensor) -> torch.Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
