"""Opens a model with the engine that the config names.

Importing this doesn't import torch: the tokenizer and the weights are read while torch is being imported.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import GenerateConfig
from pretrain_cli.generation.engines.protocol import Writer
from pretrain_cli.heap import take_huge_pages
from pretrain_cli.model.files import read_ahead, weight_files
from pretrain_cli.model.names import NamedModel, open_folders, removal_told
from pretrain_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretrain_cli.tokenizer.load import TokenizerInfo


def open_model(named: NamedModel, config: GenerateConfig, artifacts: Artifacts, progress: Progress = SILENT) -> Writer:
    """Load ``named`` into the engine that the config names.

    Raises:
        ModelError: the model is damaged, or its parts don't fit each other.
        DataError: its tokenizer is missing or damaged.
        MissingDependencyError: the engine isn't installed.
    """
    with removal_told(named):
        return _open_model(named, config, artifacts, progress)


def _open_model(named: NamedModel, config: GenerateConfig, artifacts: Artifacts, progress: Progress) -> Writer:
    if config.engine == "llama.cpp":
        from pretrain_cli.generation.engines.llama_cpp_engine import open_llama_cpp

        return open_llama_cpp(named, artifacts, progress)
    take_huge_pages()
    location, tokenizer_folder = open_folders(named, artifacts)
    folder = Path(location)
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        read_ahead(weight_files(folder))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_tokenizer, Path(tokenizer_folder))
        # The disk and the second core work while torch is imported here.
        from pretrain_cli.generation.engines.torch_engine import open_torch_writer

        info, tokenizer = reading.result()  # before threads are timed: our own work must not look like another process
        return open_torch_writer(named.name, location, config, info, tokenizer, progress.note)


def _read_tokenizer(folder: Path) -> tuple[TokenizerInfo, Tokenizer]:
    from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

    info = read_tokenizer(folder)
    return info, open_tokenizer(info.file)
