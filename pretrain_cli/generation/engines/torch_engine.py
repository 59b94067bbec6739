"""Opens a model with the torch engine that suits it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.errors import ConfigError
from pretrain_cli.generation.decoding import TorchWriter
from pretrain_cli.generation.engines.llama_shape import llama_shape
from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
from pretrain_cli.generation.engines.protocol import LogitsEngine
from pretrain_cli.generation.engines.row_products import IN_BF16, IN_INT8, bf16_gain
from pretrain_cli.model.devices import BF16_GAIN, choose_device
from pretrain_cli.model.files import check_vocabulary, check_weight_files, read_model_json, read_weights
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.tokenizer.load import TokenizerInfo

ROUNDED = {"bf16-weights": IN_BF16, "int8-weights": IN_INT8}
LEAST_WEIGHTS = 25_000_000
"""Fewer, 100 MB in fp32, are read from the CPU's cache in part."""
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""What torch calls it on x86 and on ARM."""


def open_torch_writer(
    name: str,
    location: str,
    config: GenerateConfig,
    info: TokenizerInfo,
    tokenizer: Tokenizer,
    tell: Callable[[str], None],
) -> TorchWriter:
    """Load a model: into our own loop where that computes the same, else with transformers.

    Args:
        name: what messages call it.
        location: its folder or Hub id.
        config: device and precision.
        info: what its tokenizer is.
        tokenizer: opened.
        tell: receives what was chosen of the precision, with the reason.

    Raises:
        ConfigError: weights in fewer bits are asked for where they can't be used.
        ModelError: weights are missing, damaged, or don't fit the tokenizer.
    """
    device = choose_device(config.device).value
    engine = _open_engine(location, device, config.precision, tell)
    check_vocabulary(info.vocab_size, engine.vocab_size, f"'{name}'")
    return TorchWriter(name, engine, tokenizer, info, _end_ids(Path(location), info))


def _open_engine(location: str, device: str, precision: str, tell: Callable[[str], None]) -> LogitsEngine:
    on_cpu = device.startswith("cpu")
    bf16 = precision == "bf16" or (precision == "auto" and not on_cpu)
    dtype = torch.bfloat16 if bf16 else torch.float32
    folder = Path(location)
    if (folder / "config.json").is_file():
        files = check_weight_files(folder)  # before sizes of the config are computed with
        shape = llama_shape(read_model_json(folder / "config.json")) if files else None
        if shape is not None:  # no files: torch's older format
            weights = read_weights(files)
            rounded = ROUNDED.get(precision) if on_cpu else None
            if precision == "auto" and on_cpu and (gain := _gain(weights)) >= BF16_GAIN:
                tell(f"weights in bf16: {gain:.1f} times as fast as fp32, as timed")
                rounded = ROUNDED["bf16-weights"]
            if precision not in ROUNDED or rounded is not None:
                return LlamaShapedEngine(weights, shape, device, dtype, rounded)
    if precision in ROUNDED:
        raise ConfigError(
            f"generate.precision = '{precision}' is for Llama-, Mistral- and Qwen-shaped models on a CPU.",
            "Leave generate.precision at auto.",
        )
    from pretrain_cli.generation.engines.transformers_engine import TransformersEngine

    return TransformersEngine(location, device, dtype)


def _gain(weights: dict[str, Tensor]) -> float:
    """How much faster a large model's text comes with bf16 weights; 0 where the CPU has no bf16, or they fit a cache.

    torch's flags alone were wrong on a machine that emulates it, so that a product is timed too.
    """
    head = weights.get("model.embed_tokens.weight")
    capable = torch.cpu.get_capabilities()
    native = any(capable.get(name) for name in NATIVE_BF16)
    if head is None or not native or sum(map(Tensor.numel, weights.values())) < LEAST_WEIGHTS:
        return 0.0
    return bf16_gain(head.float())


def _end_ids(folder: Path, info: TokenizerInfo) -> frozenset[int]:
    """EOS of the tokenizer, and those that the model's own files name."""
    files = [folder / name for name in ("generation_config.json", "config.json")]
    return end_ids(info.eos_id, *(read_model_json(file).get("eos_token_id") for file in files if file.is_file()))
