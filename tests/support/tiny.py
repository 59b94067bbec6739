"""Tiny real models and tokenizers that tests make for themselves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

SAMPLE = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little money in my purse, I thought I "
    "would sail about a little and see the watery part of the world. Café, naïve, Ωmega, 日本語, 🐋.\n"
)

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
OTHER_SHAPES: list[tuple[str, dict[str, object]]] = [
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("llama", {"rope_parameters": LLAMA3_ROPE}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
]
"""(family, changes for `make_model`) of models that aren't plain Llama or Qwen3."""


def make_tokenizer(folder: Path, vocab_size: int = 400) -> Tokenizer:
    """A byte-level BPE with the special tokens that `train_tokenizer` gives, saved as AutoTokenizer opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer


def make_model(folder: Path, family: str = "llama", seed: int = 0, **changes: object) -> Path:
    """A random model of 2 layers with its tokenizer, saved as `from_pretrained` opens it."""
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(seed)
    settings: dict[str, object] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": family == "qwen3",
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changes,
    }
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).save_pretrained(folder)
    return folder
