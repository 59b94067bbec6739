"""How does a Llama- or Qwen3-shaped model become a .gguf file that llama.cpp runs?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_cli.artifacts import read_json
from pretrain_cli.errors import MissingDependencyError, ModelError
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.tokenizer.train import SPLIT

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""transformers' names inside a layer -> GGUF's."""

SPLITTINGS = {SPLIT: "qwen2", SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): "llama-bpe"}
"""Pattern of a tokenizer's Split -> GGUF's name of it."""


def write_gguf(folder: Path, file: Path, kind: str, tokenizer: Path | None = None) -> None:
    """Write the model of ``folder`` to ``file``; ``kind`` is "f16" or "q8_0", ``tokenizer`` a folder of its own.

    Raises:
        MissingDependencyError: the package gguf isn't installed.
        ModelError: another architecture, or a tokenizer that isn't byte-level BPE.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError(
            "Writing a .gguf file needs the package gguf.", "Install it: pip install 'pretrain-cli[smollm2]'"
        ) from error
    from safetensors.torch import load_file

    config = read_json(folder / "config.json")
    family = config.get("model_type")
    if family not in ("llama", "qwen3"):
        raise ModelError(f"A '{family}' model can't be written as GGUF.", "Export it with --to hf.")
    tensors: dict[str, Any] = {}
    for part in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(part)
    temporary = file.with_name(f".{file.name}.part")
    writer = gguf.GGUFWriter(temporary, family)
    _write_shape(writer, config, folder.name)
    _write_tokenizer(writer, gguf, tokenizer or folder, config["vocab_size"])
    quantised = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if family == "llama" and re.search(r"\.(q|k)_proj\.", name):
            heads = config["num_attention_heads"] if ".q_proj." in name else config["num_key_value_heads"]
            values = _interleave(values, heads)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        elif kind == "q8_0" and values.shape[-1] % 32 == 0:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(gguf_name(name), values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(file)


def gguf_name(name: str) -> str:
    """GGUF's name of a transformers tensor.

    Raises:
        ModelError: a tensor these architectures don't have.
    """
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if name in whole:
        return whole[name]
    if match and match[2] in NAMES:
        return f"blk.{match[1]}.{NAMES[match[2]]}.{match[3]}"
    raise ModelError(f"The tensor '{name}' has no place in a GGUF file.", "Export the model with --to hf.")


def _interleave(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp rotates neighbouring pairs where transformers rotates halves: rows in its order."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _write_shape(writer: Any, config: dict[str, Any], name: str) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: Any, gguf: Any, folder: Path, rows: int) -> None:
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ModelError(
            "Only a byte-level BPE tokenizer can be written as GGUF.",
            "Export with --to hf, and convert with llama.cpp.",
        )
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [int(gguf.TokenType.UNUSED)] * rows
    for text, index in model["vocab"].items():
        tokens[index], types[index] = text, int(gguf.TokenType.NORMAL)
    for added in tokenizer.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitting(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_token_merges(merges)
    info = read_tokenizer(folder)
    if info.bos_id is not None:
        writer.add_bos_token_id(info.bos_id)
    if info.eos_id is not None:
        writer.add_eos_token_id(info.eos_id)
    writer.add_add_bos_token(info.adds_bos)


def _splitting(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for the way this tokenizer parts text before merging; with a wrong one prompts get other ids.

    Raises:
        ModelError: llama.cpp has no such way that is known here.
    """
    pre = tokenizer.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and patterns[0] in SPLITTINGS:
        return SPLITTINGS[patterns[0]]
    raise ModelError(
        "The tokenizer parts text in a way that has no name in GGUF files.",
        "Export with --to hf, and convert with llama.cpp.",
    )
