"""Gives a base more layers, or fewer, and keeps what it knows."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.formatting import count_of


def depth_up(model: PreTrainedModel, layers: int | None = None) -> PreTrainedModel:
    """``model`` with its middle layers repeated, as SOLAR's depth up-scaling does (arXiv 2312.15166).

    The first half of the new model has the base's first layers, the second half its last ones.

    Args:
        model: the base; changed in place.
        layers: layers afterwards; None is 1.5 times as many.

    Raises:
        ConfigError: not more layers than before, or more than twice as many.
    """
    count = len(_layers(model))
    wanted = layers or count * 3 // 2
    if not count < wanted <= 2 * count:
        raise ConfigError(
            f"depth-up takes a base of {count_of(count, 'layer')} to {count + 1} to {2 * count} layers, not {wanted}.",
            "Set model.layers within that range.",
        )
    first = (wanted + 1) // 2
    return _with_layers(model, [*range(first), *range(count - (wanted - first), count)])


def drop_layers(model: PreTrainedModel, layers: int | None = None) -> PreTrainedModel:
    """``model`` with evenly spaced layers left out; first and last stay.

    Args:
        model: the base; changed in place.
        layers: layers afterwards; None is half.

    Raises:
        ConfigError: not fewer layers than before.
    """
    count = len(_layers(model))
    wanted = layers or max(1, count // 2)
    if not 1 <= wanted < count:
        raise ConfigError(
            f"drop-layers takes a base of {count_of(count, 'layer')} to 1 to {count - 1} layers, not {wanted}.",
            "Set model.layers within that range.",
        )
    if wanted == 1:
        return _with_layers(model, [0])
    return _with_layers(model, [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)])


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"The layers of a {model.config.model_type} model can't be rearranged.", "Use a Llama-like base."
        )
    return layers


def _with_layers(model: PreTrainedModel, order: list[int]) -> PreTrainedModel:
    old: Any = _layers(model)
    seen: set[int] = set()
    new = nn.ModuleList()
    for index in order:
        new.append(copy.deepcopy(old[index]) if index in seen else old[index])
        seen.add(index)
    for position, layer in enumerate(new):
        part: Any
        for part in layer.modules():  # generation's cache goes by the index of each attention
            if hasattr(part, "layer_idx"):
                part.layer_idx = position
    config: Any = model.config
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in order]
    config.num_hidden_layers = len(order)
    model.base_model.layers = new
    return model
