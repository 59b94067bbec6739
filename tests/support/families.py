"""Tiny models of families that differ in what they see and remember."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.support.tiny import make_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
OPT = {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2}
MAMBA = {**SIZES, "state_size": 8, "expand": 2, "conv_kernel": 4, "time_step_rank": 4}
EXPERTS = {
    "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64, "head_dim": 8,
}  # fmt: skip


def build(family: str, **values: Any) -> PreTrainedModel:
    """A random model of ``family`` with 2 layers and 96 ids."""
    torch.manual_seed(0)
    settings = {"opt": OPT, "mamba": MAMBA, "rwkv": {**MAMBA, "attention_hidden_size": 32}}.get(family, SIZES)
    settings = {**settings, **EXPERTS} if "moe" in family or family in ("mixtral", "gpt_oss") else settings
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**settings, **values}))


def saved(folder: Path, family: str, **values: Any) -> Path:
    """The same with a tokenizer, in ``folder``."""
    tokenizer = make_tokenizer(folder)
    build(family, vocab_size=tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=1, **values).save_pretrained(
        folder
    )
    return folder
