"""Builds the model that a run starts from: from scratch, from a base, or from a reshaped base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config
from transformers import Qwen3ForCausalLM as Qwen3

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import Base, find_base
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError, ModelError
from pretrain_cli.formatting import exact
from pretrain_cli.manifest import Manifest
from pretrain_cli.model.adapter_folders import merge_folder
from pretrain_cli.model.files import check_vocabulary
from pretrain_cli.model.gguf_reading import convert_gguf
from pretrain_cli.model.growing import grow_base, grown_rows
from pretrain_cli.model.limits import limit_of_config, position_limit
from pretrain_cli.model.load import embedding_rows, load_model, random_model, read_model_config
from pretrain_cli.model.reshape import depth_up, drop_layers
from pretrain_cli.model.sizes import Shape
from pretrain_cli.tokenizer.load import TokenizerInfo


def build_model(
    config: Config,
    artifacts: Artifacts,
    *,
    vocab_size: int,
    sequence_length: int,
    tokenizer: TokenizerInfo,
    shape: Shape | None,
    dtype: torch.dtype = torch.float32,
    four_bit: torch.dtype | None = None,
    device: str = "cpu",
    location: str | None = None,
) -> PreTrainedModel:
    """The model that training starts from, on the CPU, weights in ``dtype``; draws from torch's global generator.

    Args:
        config: its section ``model`` says what to build.
        artifacts: where a converted base is kept.
        vocab_size: ids that the tokenizer can make.
        sequence_length: tokens in a row; the model must accept that many.
        tokenizer: the prepared data's tokenizer.
        shape: the shape from scratch; None with a base, which has its own.
        dtype: of the weights.
        four_bit: round a base's linear layers to 4 bits, and compute in this type; None: don't.
        device: where a base of 4 bits goes at once.
        location: of the base, as `starting_location` gives it, where that is known; None: it is looked for.

    Raises:
        ModelError: the base isn't there, is damaged, or its embedding is smaller than the tokenizer.
        ConfigError: an ``init`` that needs a base without one, or rows longer than the base takes.
    """
    wanted = config.model
    if not wanted.base:
        if wanted.init not in ("base", "random"):
            raise ConfigError(
                f"model.init = '{wanted.init}' reshapes a base, but there is none.", "Name one with --base MODEL."
            )
        assert shape is not None
        return scratch_model(shape, wanted.family, vocab_size, sequence_length, tokenizer, wanted.activation).to(dtype)
    location = location or starting_location(config, tokenizer, artifacts)
    base_config = read_model_config(location, wanted.trust_remote_code)
    check_length(limit_of_config(base_config), sequence_length, wanted.base)
    if wanted.init == "random":
        if tokenizer.grown_from is not None:
            base_config.vocab_size = grown_rows(vocab_size, base_config.vocab_size, wanted.vocab_multiple)
        torch_model = random_model(base_config, wanted.base)
        check_vocabulary(vocab_size, embedding_rows(torch_model), wanted.base)
        check_length(position_limit(torch_model), sequence_length, wanted.base)
        return torch_model.to(dtype)
    model = load_model(
        location,
        device=device if four_bit is not None else "cpu",
        dtype=dtype,
        tokenizer_size=vocab_size,
        trust_remote_code=wanted.trust_remote_code,
        four_bit=four_bit,
    ).train()
    check_length(position_limit(model), sequence_length, wanted.base)
    if wanted.init == "depth-up":
        return depth_up(model, wanted.layers)
    if wanted.init == "drop-layers":
        return drop_layers(model, wanted.layers)
    return model


def base_location(base: Base, artifacts: Artifacts) -> str:
    """A folder or Hub id that ``from_pretrained`` takes; a .gguf file or adapter is converted once and kept."""
    if base.below is not None:
        return str(merge_folder(base, base_location(base.below, artifacts), artifacts))
    return str(convert_gguf(Path(base.location), artifacts)) if base.kind == "gguf" else base.location


def starting_location(config: Config, tokenizer: TokenizerInfo, artifacts: Artifacts) -> str:
    """Where the base is that training starts from: with a row for each entry that ``tokenizer`` adds to its own.

    Raises:
        ModelError: the base isn't there, is damaged, or can't grow.
    """
    location = base_location(find_base(config.model.base, artifacts), artifacts)
    if tokenizer.grown_from is None or config.model.init == "random":
        return location
    return str(grow_base(location, config.model, tokenizer, artifacts))


def scratch_model(
    shape: Shape,
    family: str,
    vocab_size: int,
    sequence_length: int,
    tokenizer: TokenizerInfo,
    activation: str = "silu",
) -> PreTrainedModel:
    """A model of transformers' own class with random weights, ready to learn fast.

    SwiGLU (Shazeer 2020, arXiv 2002.05202) unless another ``activation`` is asked for: squared ReLU (arXiv 2109.08668)
    learns as much, but llama.cpp doesn't have it for these models. Output projections begin at zero, so that each layer
    begins as the identity; all others have a standard deviation of 1/√(fan in).
    """
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": activation,
        "max_position_embeddings": max(2048, sequence_length),
        "tie_word_embeddings": shape.tied(vocab_size),
        "initializer_range": 1 / math.sqrt(shape.hidden),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    model: Any = Qwen3(Qwen3Config(**settings)) if family == "qwen3" else LlamaForCausalLM(LlamaConfig(**settings))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if name.endswith(("o_proj", "down_proj")):
                nn.init.zeros_(module.weight)
            elif not (name == "lm_head" and model.config.tie_word_embeddings):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
    return model


def check_length(limit: int | None, sequence_length: int, name: str) -> None:
    """Check that a model that takes ``limit`` tokens takes rows of ``sequence_length``.

    Raises:
        ConfigError: it takes fewer.
    """
    if limit is not None and sequence_length > limit:
        raise ConfigError(
            f"Rows have {exact(sequence_length)} tokens, but {name} takes at most {exact(limit)}.",
            f"Prepare again with shorter rows: ptk prepare … --set data.sequence_length={limit}",
        )


def check_base_matches(config: Config, manifest: Manifest, artifacts: Artifacts) -> None:
    """Check that the base's own tokenizer made the rows, unless the user chose another tokenizer.

    Raises:
        ModelError: another tokenizer did: to this base, the ids would mean other words.
    """
    import tempfile

    from pretrain_cli.tokenizer.copy import copy_tokenizer, tokenizer_hash
    from pretrain_cli.tokenizer.load import read_tokenizer

    base, prepared = config.model.base, manifest.base
    if not base or config.tokenizer.path or (base == prepared and not manifest.base_tokenizer):
        return
    found = find_base(base, artifacts)
    if base == prepared and tokenizer_hash(found) == manifest.base_tokenizer:
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "tokenizer"
        copy_tokenizer(found, folder)
        fingerprint = read_tokenizer(folder).fingerprint
    if fingerprint != manifest.tokenizer.fingerprint:
        made = f"for the base '{prepared}'" if prepared else "with a tokenizer trained on the text"
        made = "for it before its files changed" if base == prepared else made
        raise ModelError(
            f"The base '{base}' has another tokenizer than the prepared data, which was made {made}.",
            f"Prepare the text again for it: ptk prepare … --base {base}",
        )
