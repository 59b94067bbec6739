"""Outlines the rows, the vocabulary and the model that would be trained, from what is known before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base
from pretrain_cli.config.model import Config, ModelConfig
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.rows.layout import choose_packing, usual_length
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import read_manifest
from pretrain_cli.tokenizer.load import read_tokenizer
from pretrain_cli.tokenizer.train import choose_vocab_size

BYTES_PER_TOKEN = ((1024, 2.2), (2048, 2.7), (4096, 3.2), (8192, 3.6), (16_384, 3.9), (10**9, 4.3))
"""Bytes of English that one token stands for, by the size of a byte-level BPE's vocabulary."""
PLAIN = (".txt", ".md", ".txt.gz", ".txt.zst")
LONG_DOCUMENT_ROWS = 10


@dataclass(frozen=True)
class Outline:
    """What is known of the data and the model.

    Attributes:
        rows: to train on.
        sequence_length: tokens in a row.
        vocabulary: number of ids.
        packing: of the rows.
        held_out: rows held out.
        base: the base's name; empty from scratch.
        model_config: transformers' config of the base, reshaped; None from scratch.
        prepared: the rows exist.
        fill: share of the rows' places that hold text; the rest is padding.
        pieces: documents in a row, if the rows don't exist.
        assumptions: what was assumed, in sentences.
    """

    rows: int
    sequence_length: int
    vocabulary: int
    packing: str
    held_out: int
    base: str
    model_config: Any
    prepared: bool = True
    fill: float = 1.0
    pieces: int = 1
    assumptions: tuple[str, ...] = ()

    def scratch_config(self, shape: Any, model: ModelConfig) -> Any:
        """transformers' config of a model from scratch."""
        return self._build_scratch(shape, model).config

    def build(self, model_config: Any) -> Any:
        """A model of that config with random weights."""
        from pretrain_cli.model.load import random_model

        return random_model(model_config, self.base)

    def _build_scratch(self, shape: Any, model: ModelConfig) -> Any:
        from torch import device

        from pretrain_cli.model.build import scratch_model

        ids: Any = SimpleNamespace(bos_id=0, eos_id=1, pad_id=2)
        with device("meta"):
            return scratch_model(shape, model.family, self.vocabulary, self.sequence_length, ids, model.activation)


def outline_of(config: Config, artifacts: Artifacts) -> Outline:
    """The prepared data's figures, or those that the named text would have.

    Raises:
        DataError: nothing is prepared, and no text is named.
        ModelError: the base isn't there.
    """
    if config.data.inputs or config.data.sources:
        return _from_text(config, artifacts)
    if not artifacts.manifest.is_file():
        raise DataError("Nothing is prepared, and no text is named.", "Name a text: ptk plan data.txt")
    manifest = read_manifest(artifacts)
    base = config.model.base or manifest.base
    model_config = base_config(base, config, artifacts) if base else None
    if model_config is not None and manifest.tokenizer.extension is not None:
        from pretrain_cli.model.growing import grown_rows

        size, multiple = manifest.tokenizer.vocab_size, config.model.vocab_multiple
        model_config.vocab_size = grown_rows(size, int(model_config.vocab_size), multiple)
    return Outline(
        rows=manifest.train.rows,
        sequence_length=manifest.settings.sequence_length,
        vocabulary=read_tokenizer(artifacts.tokenizer).vocab_size,
        packing=manifest.settings.packing,
        held_out=manifest.validation.rows,
        base=base,
        model_config=model_config,
        fill=manifest.train.fill(manifest.settings.sequence_length),
    )


def _from_text(config: Config, artifacts: Artifacts) -> Outline:
    data, base = config.data, config.model.base
    files = find_files([*data.inputs, *(source.path for source in data.sources)])
    size = sum(file.likely_bytes for file in files)
    if not size:
        raise DataError("The size of this text isn't known before it is read.", "Prepare it first: ptk prepare …")
    model_config = base_config(base, config, artifacts) if base else None
    wanted = config.tokenizer.vocab_size
    vocabulary = int(wanted) if wanted != "auto" else choose_vocab_size(int(size))
    if model_config is not None:
        vocabulary = int(model_config.vocab_size)
    per_token = next(rate for limit, rate in BYTES_PER_TOKEN if vocabulary <= limit)
    length = usual_length(base) if data.sequence_length == "auto" else data.sequence_length
    kept = size * (1 - data.validation_fraction)
    return Outline(
        rows=max(1, int(kept / per_token / length)),
        sequence_length=length,
        vocabulary=vocabulary,
        packing=choose_packing(data),
        held_out=int(size * data.validation_fraction / per_token / length),
        base=base,
        model_config=model_config,
        prepared=False,
        pieces=1 if _long_documents(config, [file.path for file in files], size / per_token, length) else 2,
        assumptions=(f"The text isn't prepared yet: {per_token} bytes per token are assumed.",),
    )


def _long_documents(config: Config, paths: list[str], tokens: float, length: int) -> bool:
    """Whether most rows hold a piece of one document only: each file is one, and fills several rows."""
    files_are_documents = not config.data.separator and all(path.lower().endswith(PLAIN) for path in paths)
    return files_are_documents and tokens / max(1, len(paths)) >= LONG_DOCUMENT_ROWS * length


def base_config(name: str, config: Config, artifacts: Artifacts) -> Any:
    """transformers' config of the base, reshaped as ``model.init`` says, without reading its weights.

    Raises:
        ModelError: there is no such base.
    """
    from pretrain_cli.model.files import check_weight_files
    from pretrain_cli.model.gguf_reading import gguf_config
    from pretrain_cli.model.limits import text_config
    from pretrain_cli.model.load import read_model_config

    base = find_base(name, artifacts)
    while base.below is not None:  # an adapter's base has the shape
        base = base.below
    if base.kind == "gguf":
        found = gguf_config(Path(base.location))
    else:
        if base.kind == "folder" and config.model.init != "random" and any(Path(base.location).glob("*.safetensors")):
            check_weight_files(Path(base.location))  # a plan needs none, but no config of another model beside some
        found = text_config(read_model_config(base.location, config.model.trust_remote_code))
    layers = int(found.num_hidden_layers)
    reshaped: dict[str, Callable[[], int]] = {
        "depth-up": lambda: config.model.layers or layers * 3 // 2,
        "drop-layers": lambda: config.model.layers or layers // 2,
    }
    if config.model.init in reshaped:
        found.num_hidden_layers = reshaped[config.model.init]()
        if getattr(found, "layer_types", None):
            found.layer_types = (list(found.layer_types) * 2)[: found.num_hidden_layers]
    return found
