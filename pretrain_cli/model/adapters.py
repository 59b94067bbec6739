"""Puts LoRA's matrices beside a model's layers with PEFT, saves, loads and merges them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pretrain_cli.artifacts import ADAPTER_WEIGHTS
from pretrain_cli.config.model import TrainConfig
from pretrain_cli.errors import ConfigError, ModelError, first_line

STRENGTH = 2.0
"""What LoRA's output is multiplied by where alpha isn't given."""


def attach_adapter(
    model: PreTrainedModel, train: TrainConfig, rank: int, base: str, new_tokens: Sequence[int] = ()
) -> None:
    """Freeze ``model`` and put trainable fp32 matrices beside its layers; at first they change nothing.

    Args:
        model: changed in place; its class stays.
        train: alpha, targets, dropout and variants.
        rank: of the matrices.
        base: where the model is from, for those who open the adapter.
        new_tokens: ids whose rows in embedding and head are trained as well.

    Raises:
        ConfigError: no layer has the name of a target.
    """
    from peft import LoraConfig

    targets = _target_names(model, train.lora_targets)
    alpha: Any = STRENGTH * (math.sqrt(rank) if train.rslora else rank)
    alpha = alpha if train.lora_alpha == "auto" else train.lora_alpha
    settings = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
        target_modules=targets,
        lora_dropout=train.lora_dropout,
        use_dora=train.dora,
        use_rslora=train.rslora,
        task_type="CAUSAL_LM",
        trainable_token_indices=_row_modules(model, new_tokens),
    )
    model.requires_grad_(False)
    try:
        model.add_adapter(settings)
    except ValueError as error:
        raise ConfigError(
            f"LoRA can't be put beside these layers: {first_line(error)}", "Leave train.lora_targets empty."
        ) from error
    settings.base_model_name_or_path = base
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _row_modules(model: PreTrainedModel, new_tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Names of embedding and head, and the rows of them that are trained; None where none is."""
    if not new_tokens:
        return None
    tables = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in tables]
    return {name: list(new_tokens) for name in names}


def _target_names(model: PreTrainedModel, wanted: tuple[str, ...]) -> list[str]:
    """The last names of the layers to adapt, as ``adapter_config.json`` lists them.

    Raises:
        ConfigError: no layer is called so.
    """
    linear = {name.rpartition(".")[2] for name in adapted_layers(model)}
    for name in wanted:
        if name not in linear:
            raise ConfigError(
                f"train.lora_targets names '{name}', and the base has no linear layer of that name.",
                f"It has: {', '.join(sorted(linear))}.",
            )
    return sorted(wanted or linear)


def adapted_layers(model: PreTrainedModel, targets: Sequence[str] = ()) -> list[str]:
    """Full names of the linear layers whose last name is in ``targets``; of all but the head where there are none."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and module is not head
        and (not targets or name.rpartition(".")[2] in targets)
    ]


def has_adapter(model: nn.Module) -> bool:
    """Whether LoRA's matrices stand beside the model's layers."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """The matrices and their settings, as plain PEFT opens them."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings: Any = model.peft_config["default"]
    own = get_peft_model_state_dict(model)
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in own.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    training, settings.inference_mode = settings.inference_mode, True
    settings.save_pretrained(str(folder))
    settings.inference_mode = training


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put the matrices in ``folder`` into those of ``model``.

    Raises:
        ModelError: they are of another shape.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = {
        name.removeprefix("base_model.model."): tensor for name, tensor in load_file(folder / ADAPTER_WEIGHTS).items()
    }
    try:
        found: Any = set_peft_model_state_dict(model, tensors)
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"The adapter in {folder} doesn't fit its base: {first_line(error)}", "Use its base."
        ) from error
    if wrong := [*(name for name in found.missing_keys if "lora_" in name), *found.unexpected_keys]:
        raise ModelError(f"The adapter in {folder} doesn't fit its base, first at {wrong[0]}.", "Use its base.")


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """``model`` with the matrices added to its weights: a plain model again, changed in place."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, TrainableTokensWrapper):
            parent, _, leaf = name.rpartition(".")
            plain = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            setattr(model.get_submodule(parent), leaf, plain)
        elif isinstance(module, BaseTunerLayer) and not isinstance(module, TrainableTokensLayer):
            module.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    model.tie_weights()
    model.disable_input_require_grads()
    model._hf_peft_config_loaded = False
    model.__dict__.pop("peft_config", None)
    model.requires_grad_(True)
    return model


def weights_hash(model: nn.Module) -> str:
    """A fingerprint (XXH3) of all weights as they are held, 4 bits and their scales included."""
    import xxhash

    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().reshape(-1).contiguous().cpu()
        digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
    return str(digest.hexdigest())
