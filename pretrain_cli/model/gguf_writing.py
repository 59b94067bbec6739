"""Writes a Llama-, Mistral- or Qwen-shaped model as a .gguf file that llama.cpp runs."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain_cli.errors import MissingDependencyError, ModelError
from pretrain_cli.model.files import check_finite, read_weights, weight_files
from pretrain_cli.model.gguf_tokenizer import write_tokenizer
from pretrain_cli.model.llama_cpp import FAMILIES, check_config
from pretrain_cli.model.rope import inverse_frequencies, rope_settings
from pretrain_cli.optional import to_install
from pretrain_cli.storage import read_json, replacing
from pretrain_cli.tokenizer.gguf_files import keep_files

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""transformers' names inside a layer -> GGUF's."""


class _Written(np.ndarray[Any, np.dtype[Any]]):
    """An array whose writing fails with the system's own error; numpy's says only how much was written."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        fid.write(np.ascontiguousarray(self).data)


def write_gguf(folder: Path, file: Path, kind: str, tokenizer: Path | None = None) -> None:
    """Write the model in ``folder`` to ``file``; ``kind`` is "f16" or "q8_0", ``tokenizer`` another folder with that.

    Raises:
        MissingDependencyError: the package gguf isn't installed.
        ModelError: damaged weights, or an architecture, activation, rotary embedding or tokenizer that llama.cpp or
            this file doesn't know.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError(
            "Writing a .gguf file needs the package gguf.", f"Install it: {to_install(extra='smollm2')}"
        ) from error
    config = read_json(folder / "config.json")
    check_config(config)
    family = FAMILIES[config["model_type"]]
    tensors = read_weights(weight_files(folder))
    check_finite(tensors, str(folder))
    writer = gguf.GGUFWriter(None, family)
    kinds = gguf.LlamaFileType
    writer.add_file_type(kinds.MOSTLY_Q8_0 if kind == "q8_0" else kinds.MOSTLY_F16)
    _write_shape(writer, config, folder.name)
    _write_rope(writer, gguf, config)
    write_tokenizer(writer, gguf, tokenizer or folder, config["vocab_size"])
    keep_files(writer, folder, tokenizer or folder)
    quantized = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if family == "llama" and re.search(r"\.(q|k)_proj\.", name):
            values = _interleave(values, _heads(name, config))
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values.view(_Written))
        elif kind == "q8_0" and values.shape[-1] % 32 == 0:
            blocks = gguf.quants.quantize(values, quantized)
            writer.add_tensor(gguf_name(name), blocks.view(_Written), raw_dtype=quantized)
        else:
            writer.add_tensor(gguf_name(name), values.astype(np.float16).view(_Written))
    with replacing(file) as temporary, contextlib.closing(writer):
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
"""transformers' names outside the layers -> GGUF's."""


def gguf_name(name: str) -> str:
    """GGUF's name of a transformers tensor.

    Raises:
        ModelError: a tensor these architectures don't have.
    """
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if name in WHOLE:
        return WHOLE[name]
    if match and match[2] in NAMES:
        return f"blk.{match[1]}.{NAMES[match[2]]}.{match[3]}"
    raise ModelError(f"A GGUF file has no place for the tensor '{name}'.", "Export the model with --to hf.")


def _interleave(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Put the rows in llama.cpp's order, which rotates neighboring pairs where transformers rotates halves."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def transformers_name(name: str) -> str:
    """The transformers name of a tensor in a file that `write_gguf` wrote; empty for what isn't a weight."""
    match = re.fullmatch(r"blk\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        return next((own for own, other in WHOLE.items() if other == name), "")
    return next((f"model.layers.{match[1]}.{own}.{match[3]}" for own, other in NAMES.items() if other == match[2]), "")


def in_own_order(name: str, values: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    """``values`` of the tensor with this transformers name as `write_gguf` found them, before it changed the order."""
    if FAMILIES[config["model_type"]] != "llama" or not re.search(r"\.(q|k)_proj\.", name):
        return values
    heads = _heads(name, config)
    shape = values.shape
    return values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _heads(name: str, config: dict[str, Any]) -> int:
    heads: int = config["num_attention_heads"]
    return heads if ".q_proj." in name else config.get("num_key_value_heads") or heads


def context_length(config: dict[str, Any]) -> int:
    """Positions of a model as a .gguf file has them: no sliding window, so they end where it would begin to slide."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    positions: int = config["max_position_embeddings"]
    return min(positions, window or positions)


def _write_shape(writer: Any, config: dict[str, Any], name: str) -> None:
    heads = config["num_attention_heads"]
    head_dim = _head_dim(config)
    writer.add_name(name)
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _head_dim(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _write_rope(writer: Any, gguf: Any, config: dict[str, Any]) -> None:
    """Base, scaling, and for Llama 3.1's kind a tensor of divisors, one for each pair in a head."""
    rope, head_dim = rope_settings(config), _head_dim(config)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif rope["rope_type"] == "llama3":
        plain = inverse_frequencies({"rope_theta": rope["rope_theta"]}, head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / inverse_frequencies(config, head_dim)).numpy())
