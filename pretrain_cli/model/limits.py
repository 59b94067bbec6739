"""Reads how many tokens a model can look at, and other sizes, from a config of any architecture."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

DEFAULT_CONTEXT = 2048
"""Tokens for a model that names no limit."""
NAMES = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "max_target_positions")
"""What configs call it. Most of those that have another name of their own map it to the first."""
FORBIDDEN = (AttributeError, NotImplementedError, RuntimeError)
"""What configs raise that forbid a question: RuntimeError where layers differ and have no common answer."""


def text_config(config: PreTrainedConfig) -> Any:
    """The part of a config that is about text: its own, but in models that also see or hear."""
    return config.get_text_config(decoder=True)


def size_of(config: PreTrainedConfig, name: str, default: int = 0) -> int:
    """The size ``name`` of the text model, such as ``hidden_size``; ``default`` where its config has none."""
    try:
        value = getattr(text_config(config), name, default)
    except FORBIDDEN:
        return default
    return int(value) if isinstance(value, (int, float)) else default


def limit_of_config(config: PreTrainedConfig) -> int | None:
    """Tokens that a model of this config has positions for; None where it says none, as a recurrent one may."""
    found = text_config(config)
    for name in NAMES:
        try:
            value = getattr(found, name)
        except FORBIDDEN:
            continue
        if isinstance(value, int) and value > 1:
            return value
    return None


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The same config with other ``layers``, their kinds in turn."""
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = layers
    if kinds := getattr(changed, "layer_types", None):  # as many as layers; a model of one is counted with two
        changed.layer_types = [kinds[index % len(kinds)] for index in range(layers)]
    return changed


def position_limit(model: PreTrainedModel) -> int | None:
    """Tokens that ``model`` has positions for; None where it names no limit.

    Models of RoBERTa's kind count positions from after the padding's: two fewer than their config says. ProphetNet,
    which predicts several tokens ahead, reads one further.
    """
    limit = limit_of_config(model.config)
    if limit is None:
        return None
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    before = [
        table.padding_idx + 1
        for table in tables
        if table.num_embeddings == limit != _vocabulary(model) and table.padding_idx is not None
    ]
    return limit - max(before, default=0) - int(hasattr(model.config, "ngram"))


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().weight.shape[0])
