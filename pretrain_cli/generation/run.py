"""The front door of generate: text from a run, a checkpoint, a base or any model, streamed as it is written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.errors import UsageError
from pretrain_cli.generation.engines.weights import read_ahead, weight_files
from pretrain_cli.generation.prompts import check_prompt
from pretrain_cli.generation.results import GenerateResult, OnText, Sample
from pretrain_cli.heap import take_huge_pages
from pretrain_cli.model.names import NamedModel, checkpoints_of, find_model, open_folders
from pretrain_cli.progress import SILENT, Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretrain_cli.tokenizer.load import TokenizerInfo


class Voice(Protocol):
    """A model in memory, whichever engine runs it."""

    def write(
        self,
        prompts: Sequence[str],
        config: GenerateConfig,
        warn: Callable[[str], None],
        on_text: OnText | None,
        started: float,
    ) -> list[Sample]:
        """Every sample of every prompt, in order; the first token is timed from ``started``."""


def generate(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    prompts: Sequence[str],
    model: str | None = None,
    checkpoint: str | None = None,
    on_text: OnText | None = None,
) -> GenerateResult:
    """Continue ``prompts`` with one model.

    Args:
        config: ``config.generate`` says how.
        artifacts: where runs are found.
        progress: told about prompts that had to be cut, and, where nothing is streamed, how far it is.
        prompts: texts to continue; an empty one starts a new document.
        model: a run's name, a folder, a hub id, a .gguf file or "base"; None is the latest run.
        checkpoint: one of the run's checkpoints, such as "step-000100".
        on_text: called with a sample's index and each piece of its text as soon as it is whole.

    Raises:
        UsageError: no prompt, or one that isn't valid Unicode.
        ModelError: the model isn't there, is damaged, or gives probabilities that aren't finite.
    """
    return _generate_with(find_model(model, artifacts, checkpoint), config, artifacts, progress, prompts, on_text)


def generate_side_by_side(
    config: Config,
    artifacts: Artifacts,
    progress: Progress = SILENT,
    *,
    prompts: Sequence[str],
    models: Sequence[str | None],
) -> list[GenerateResult]:
    """The same prompts and seeds with several models, one result each, in their order."""
    return [generate(config, artifacts, progress, prompts=prompts, model=model) for model in models]


def generate_checkpoints(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, prompts: Sequence[str], run: str | None = None
) -> list[GenerateResult]:
    """The same prompts and seeds with each of the run's checkpoints, oldest first: how its answers changed.

    Raises:
        UsageError: the run kept no checkpoint.
    """
    folder = artifacts.existing_run(run)
    names = checkpoints_of(folder)
    if not names:
        raise UsageError(
            f"Run '{folder.name}' kept no checkpoint.", "Leave --checkpoint out to use its finished model."
        )
    return [
        generate(config, artifacts, progress, prompts=prompts, model=folder.name, checkpoint=name) for name in names
    ]


def open_model(named: NamedModel, config: GenerateConfig, artifacts: Artifacts, progress: Progress = SILENT) -> Voice:
    """Load ``named`` into the engine that the config names.

    Raises:
        ModelError: the model is damaged, or its parts don't fit each other.
        DataError: its tokenizer is missing or damaged.
        MissingDependencyError: the engine isn't installed.
    """
    if config.engine == "llama.cpp":
        from pretrain_cli.generation.engines.llama_cpp import open_llama

        return open_llama(named, artifacts, progress)
    take_huge_pages()
    location, tokenizer_folder = open_folders(named, artifacts)
    folder = Path(location)
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        read_ahead(weight_files(folder))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_tokenizer, Path(tokenizer_folder))
        # The disk and the second core work while torch is imported here.
        from pretrain_cli.generation.engines.choice import open_writer

        info, tokenizer = reading.result()  # before threads are timed: no work of ours may look like another process
        return open_writer(named.name, location, config, info, tokenizer)


def _read_tokenizer(folder: Path) -> tuple[TokenizerInfo, Tokenizer]:
    from pretrain_cli.tokenizer.load import open_tokenizer, read_tokenizer

    info = read_tokenizer(folder)
    return info, open_tokenizer(info.file)


def _generate_with(
    named: NamedModel,
    config: Config,
    artifacts: Artifacts,
    progress: Progress,
    prompts: Sequence[str],
    on_text: OnText | None,
) -> GenerateResult:
    if not prompts:
        raise UsageError("There is no prompt to continue.", 'Give one: ptk generate "Once upon a time"')
    for prompt in prompts:
        check_prompt(prompt)
    started = time.perf_counter()
    warnings: list[str] = []

    def warn(text: str) -> None:
        if text not in warnings:
            warnings.append(text)
            progress.warn(text)

    if on_text is not None:
        voice = open_model(named, config.generate, artifacts, progress)
        return GenerateResult(voice.write(prompts, config.generate, warn, on_text, started), warnings)
    progress.stage(f"loading {named.name}")
    voice = open_model(named, config.generate, artifacts, progress)
    progress.end_stage()
    total = len(prompts) * config.generate.samples * config.generate.max_tokens
    progress.stage(f"writing with {named.name}", total, "tokens")
    pieces = itertools.count(1)
    count = lambda *_: progress.advance(next(pieces))  # noqa: E731
    samples = voice.write(prompts, config.generate, warn, count, started)
    progress.end_stage()
    return GenerateResult(samples, warnings)
