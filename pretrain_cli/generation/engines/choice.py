"""Which code runs a model, and its tokenizer and end tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.errors import ModelError
from pretrain_cli.generation.engines.lean import LeanModel, lean_shape
from pretrain_cli.generation.engines.weights import read_model_json, read_weights, weight_files
from pretrain_cli.generation.results import OnText, Sample
from pretrain_cli.model.devices import choose_device
from pretrain_cli.tokenizer.load import TokenizerInfo


class Engine(Protocol):
    """Runs one model on one batch at a time."""

    context: int
    vocab_size: int
    threads: int
    """torch's threads on a CPU while it writes."""
    rounds: bool
    """Whether the last bits of a row's logits depend on how it is computed: alone, in a batch, with which product."""
    in_parts: bool
    """Whether the last prompt was read in parts, the first of them while earlier text was written."""

    def start(self, prompts: list[list[int]], max_new: int) -> Tensor:
        """Read prompts; logits float32[B, V] after each."""

    def step(self, rows: list[int], tokens: list[int]) -> Tensor:
        """Add one token to each of ``rows``; logits float32[len(rows), V]."""

    def reread(self, ids: list[int]) -> Tensor:
        """Logits float32[V] after ``ids``, read at once: the same for a row alone and in a batch."""


@dataclass(frozen=True)
class Writer:
    """A model that is ready to write."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    info: TokenizerInfo
    end_ids: frozenset[int]

    def write(
        self,
        prompts: Sequence[str],
        config: GenerateConfig,
        warn: Callable[[str], None],
        on_text: OnText | None,
        started: float,
    ) -> list[Sample]:
        """Every sample of every prompt, in order; the first token is timed from ``started``."""
        from pretrain_cli.generation.decoding import write

        return write(self, prompts, config, warn, on_text, started)


def open_writer(name: str, location: str, config: GenerateConfig, info: TokenizerInfo, tokenizer: Tokenizer) -> Writer:
    """Load a model: through the lean loop where it computes the same, else through transformers.

    Args:
        name: what messages call it.
        location: its folder or hub id.
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
    if info.vocab_size > engine.vocab_size:
        raise ModelError(
            f"The tokenizer of '{name}' has {info.vocab_size} entries, its embedding {engine.vocab_size} rows.",
            "The tokenizer belongs to another model: put the right tokenizer.json beside the weights.",
        )
    return Writer(name, engine, tokenizer, info, _end_ids(Path(location), info))


def _open_engine(location: str, device: str, dtype: torch.dtype) -> Engine:
    folder = Path(location)
    if (folder / "config.json").is_file():
        shape = lean_shape(read_model_json(folder / "config.json"))
        if shape is not None and not (folder / "pytorch_model.bin").is_file():
            return LeanModel(read_weights(weight_files(folder)), shape, device, dtype)
    from pretrain_cli.generation.engines.whole import WholeModel

    return WholeModel(location, device, dtype)


def _end_ids(folder: Path, info: TokenizerInfo) -> frozenset[int]:
    """EOS of the tokenizer, and those that the model's own files name."""
    found = set() if info.eos_id is None else {info.eos_id}
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_model_json(folder / name).get("eos_token_id")
            found |= {value} if isinstance(value, int) else set(value or ())
    return frozenset(found)
