"""Compares a model's config.json with the headers of its weights, before anything is built or allocated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pretrain_cli.config.model import MOST_LAYERS
from pretrain_cli.errors import ModelError
from pretrain_cli.formatting import exact

COUNTS = ("hidden_size", "vocab_size", "num_hidden_layers", "n_embd", "n_layer", "d_model")
"""Settings that are a whole number in every family that has them."""
WITHIN_ROWS = (
    "hidden_size", "vocab_size", "n_embd", "d_model", "head_dim", "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
"""Settings that no model has more of than its widest weight has rows or columns."""
LLAMA_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
KERNELS = tuple(f"{mark}{kind}_implementation" for mark in ("", "_") for kind in ("attn", "experts"))
"""Settings that may be the address of a kernel."""
LISTED = re.compile(r"num_labels$|layers?$|depth$|blocks?$|experts$|(block|expert)_count$")
"""Settings that transformers makes a list of, an entry each."""
INNER = re.compile(r"intermediate_size$|n_inner$|ffn_hidden_size$|ffn_dim$|d_ff$")
"""Widths within a layer. transformers makes a weight of that size where the files have none."""
LEAST_MOST_INNER = 1 << 17
"""A config may name a width that no layer has, as of models whose layers are all made of experts."""
DROPPED = re.compile(r"dropout$|pdrop$|layerdrop$")
"""Shares that are left out at random in training."""
MOST_LISTED = 100_000
LAYERS = re.compile(r"layers?$|depth$|blocks?$|block_count$")
MOST_PACKED = 16
"""Values that a rounded weight holds in one number: 2 bits each, of 32."""
Shape = tuple[int, ...]


def check_config_fits(config: Mapping[str, Any], shapes: Mapping[str, Shape], name: str, hint: str) -> None:
    """Check the sizes in ``config``.

    Args:
        config: what config.json says.
        shapes: of all tensors in the weights' files, by name.
        name: of the model's folder, for messages.
        hint: what the user can do.

    Raises:
        ModelError: a size isn't one, or isn't that of the weights; or it asks for code from the Hub.
    """
    check_settings(config, name)
    own = config.get("text_config")
    sizes = own if isinstance(own, dict) else config
    widest = max((size for shape in shapes.values() for size in shape), default=0)
    for key in COUNTS:
        if key in sizes and not _is_count(sizes[key]):
            told = f"{key} is {sizes[key]!r:.100}, but has to be a whole number of at least 1"
            raise ModelError(f"config.json in {name} describes no model: {told}.", hint)
    if not shapes:
        return
    rounded = config.get("quantization_config")
    if isinstance(rounded, dict) and rounded.get("quant_method") == "bitsandbytes" and not _is_rounded(shapes):
        raise ModelError(f"config.json in {name} says that the weights are rounded, but they are whole.", hint)
    most = widest * MOST_PACKED if rounded else widest
    for key in WITHIN_ROWS:
        if _is_count(sizes.get(key)) and sizes[key] > most:
            told = f"{key} is {exact(sizes[key])}, but no weight has more than {exact(widest)} rows or columns"
            raise ModelError(f"config.json in {name} doesn't fit the weights: {told}.", hint)
    for key, size in sizes.items():
        if INNER.search(key) and _is_count(size) and size > max(most, LEAST_MOST_INNER):
            told = f"{key} is {exact(size)}, but no weight has more than {exact(widest)} rows or columns"
            raise ModelError(f"config.json in {name} doesn't fit the weights: {told}.", hint)
    for key in ("num_hidden_layers", "n_layer"):
        if key in sizes and sizes[key] > len(shapes):
            told = f"{key} is {exact(sizes[key])}, but there are {exact(len(shapes))} weights"
            raise ModelError(f"config.json in {name} doesn't fit the weights: {told}.", hint)
    if config.get("model_type") in LLAMA_FAMILIES and not rounded:
        for tensor, wanted in _llama_shapes(config, shapes):
            if shapes[tensor] != wanted:
                told = f"{tensor} is {_shape(shapes[tensor])} instead of {_shape(wanted)}"
                raise ModelError(f"config.json in {name} doesn't fit the weights: {told}.", hint)


def check_settings(config: Mapping[str, Any], name: str) -> None:
    """Check what transformers would act on as it reads ``config``, or one in it: before a weight is looked at.

    It would download and run a kernel of the Hub, and make a list as long as there are labels or layers.

    Raises:
        ModelError: it names such a kernel, or more labels or layers than any model has.
    """
    for key, value in config.items():
        most = MOST_LAYERS if LAYERS.search(key) else MOST_LISTED
        if LISTED.search(key) and isinstance(value, int | float) and value > most:
            raise ModelError(
                f"config.json in {name} describes no model: {key} is {exact(value)}.", "Restore the file, or remove it."
            )
        named = [value] if isinstance(value, str) else list(value.values()) if isinstance(value, dict) else []
        if key in KERNELS and (kernel := next((each for each in named if "/" in str(each)), None)):
            raise ModelError(
                f"config.json in {name} asks for code from the Hub, {kernel!r:.100}, which isn't run.",
                f'Remove "{key}" from it: transformers then takes its own.',
            )
        if isinstance(value, dict):
            check_settings(value, name)


def check_trains(config: Mapping[str, Any], name: str, hint: str) -> None:
    """Check what only training meets: shares that are dropped out, and outputs with which no model is saved.

    Raises:
        ModelError: a share isn't one, or attention's weights are asked for.
    """
    for key, value in config.items():
        if DROPPED.search(key) and isinstance(value, int | float) and not 0 <= value <= 1:
            raise ModelError(f"config.json in {name} describes no training: {key} is {value}.", hint)
        if key == "output_attentions" and value:
            raise ModelError(f"config.json in {name} asks for attention's weights, which training doesn't give.", hint)


def _llama_shapes(config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """(tensor, shape that the config says) of the weights whose shape comes from two settings."""
    kinds = {
        "embed_tokens": ("vocab_size", "hidden_size"), "lm_head": ("vocab_size", "hidden_size"),
        "gate_proj": ("intermediate_size", "hidden_size"), "up_proj": ("intermediate_size", "hidden_size"),
        "down_proj": ("hidden_size", "intermediate_size"),
    }  # fmt: skip
    for tensor in shapes:
        keys = kinds.get(tensor.split(".")[-2], ()) if tensor.endswith(".weight") else ()
        if keys and all(key in config for key in keys):
            yield tensor, tuple(config[key] for key in keys)


def _is_rounded(shapes: Mapping[str, Shape]) -> bool:
    """Whether bitsandbytes' scales are there."""
    return any(name.endswith((".absmax", "SCB")) or ".quant_state." in name for name in shapes)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _shape(shape: tuple[object, ...]) -> str:
    return " × ".join(exact(size) if isinstance(size, (int, float)) else f"{size!r:.100}" for size in shape)
