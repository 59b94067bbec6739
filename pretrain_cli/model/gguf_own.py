"""Reads a .gguf file that ptk wrote back into the folder that it was written from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.formatting import count_of
from pretrain_cli.model.config_checks import check_settings
from pretrain_cli.model.gguf_writing import in_own_order, transformers_name
from pretrain_cli.model.llama_cpp import FAMILIES
from pretrain_cli.storage import write_json, write_text

OTHERWISE = "Use a complete copy, or give the model as a folder."

SHAPE = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
"""What the file says twice: for llama.cpp, and in the config."""


def write_own_model(file: Path, kept: dict[str, str], folder: Path) -> bool:
    """Write the weights of ``file``, in fp32, and its configs into ``folder``; False where ptk didn't write it.

    Args:
        file: with all that ``config.json`` doesn't say in its tensors.
        kept: the small files in it, as `kept_files` gives them.
        folder: receives the model.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        config = json.loads(kept.get("config.json", "{}"))
        check_settings(config, str(file))
    except (ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"{file} can't be read as GGUF: {first_line(error)}.", OTHERWISE) from error
    if config.get("model_type") not in FAMILIES:
        return False
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        weights: dict[str, torch.Tensor] = {}
        reader = gguf.GGUFReader(file)
        for key, name in SHAPE.items():
            told = reader.fields[f"{FAMILIES[config['model_type']]}.{key}"].contents()
            if told != config[name]:
                raise ValueError(f"{key} is {told}, and in the model's config {config[name]}")
        for tensor in reader.tensors:
            if name := transformers_name(tensor.name):
                values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                weights[name] = torch.from_numpy(np.array(in_own_order(name, values, config), dtype=np.float32))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), trust_remote_code=False)
        wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    except Exception as error:  # a damaged file makes gguf raise nearly anything
        raise ModelError(f"{file} can't be read as GGUF: {first_line(error)}.", OTHERWISE) from error
    check_whole(file, [name for name in wanted if name not in weights or weights[name].shape != wanted[name]])
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", {**config, "dtype": "float32"})
    if "generation_config.json" in kept:
        write_text(folder / "generation_config.json", kept["generation_config.json"])
    return True


def check_whole(file: Path, wrong: Sequence[str]) -> None:
    """Raise ModelError where tensors of the model in ``file`` are missing, or of another shape."""
    if wrong:
        raise ModelError(
            f"{file} is damaged: it lacks {count_of(len(wrong), 'tensor')} of the model's shape, first {min(wrong)}.",
            OTHERWISE,
        )
