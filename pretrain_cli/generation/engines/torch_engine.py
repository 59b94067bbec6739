"""Opens a model with the torch engine that suits it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.generation.decoding import TorchWriter
from pretrain_cli.generation.engines.llama_shape import llama_shape
from pretrain_cli.generation.engines.llama_shaped_engine import LlamaShapedEngine
from pretrain_cli.generation.engines.protocol import LogitsEngine
from pretrain_cli.model.devices import choose_device
from pretrain_cli.model.files import check_vocabulary, read_model_json, read_weights, weight_files
from pretrain_cli.model.greedy import end_ids
from pretrain_cli.tokenizer.load import TokenizerInfo


def open_torch_writer(
    name: str, location: str, config: GenerateConfig, info: TokenizerInfo, tokenizer: Tokenizer
) -> TorchWriter:
    """Load a model: into our own loop where that computes the same, else with transformers.

    Args:
        name: what messages call it.
        location: its folder or Hub id.
        config: device and precision.
        info: what its tokenizer is.
        tokenizer: opened.

    Raises:
        ModelError: weights are missing, damaged, or don't fit the tokenizer.
    """
    device = choose_device(config.device).value
    on_gpu = not device.startswith("cpu")
    bf16 = config.precision == "bf16" or (config.precision == "auto" and on_gpu)
    engine = _open_engine(location, device, torch.bfloat16 if bf16 else torch.float32)
    check_vocabulary(info.vocab_size, engine.vocab_size, f"'{name}'")
    return TorchWriter(name, engine, tokenizer, info, _end_ids(Path(location), info))


def _open_engine(location: str, device: str, dtype: torch.dtype) -> LogitsEngine:
    folder = Path(location)
    if (folder / "config.json").is_file():
        shape = llama_shape(read_model_json(folder / "config.json"))
        if shape is not None and not (folder / "pytorch_model.bin").is_file():
            return LlamaShapedEngine(read_weights(weight_files(folder)), shape, device, dtype)
    from pretrain_cli.generation.engines.transformers_engine import TransformersEngine

    return TransformersEngine(location, device, dtype)


def _end_ids(folder: Path, info: TokenizerInfo) -> frozenset[int]:
    """EOS of the tokenizer, and those that the model's own files name."""
    files = [folder / name for name in ("generation_config.json", "config.json")]
    return end_ids(info.eos_id, *(read_model_json(file).get("eos_token_id") for file in files if file.is_file()))
