"""The front door of generate: text from a run, a checkpoint, a base or any model, streamed as it is written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, GenerateConfig
from pretrain_cli.errors import UsageError
from pretrain_cli.generation.opening import open_model
from pretrain_cli.generation.prompts import check_prompt
from pretrain_cli.generation.results import GeneratedText, GenerateResult, OnText
from pretrain_cli.model.names import find_model, open_folders
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.tokenizer.chat import need_chat_template


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
        progress: told about prompts that had to be cut and, where nothing is streamed, how far it is.
        prompts: texts to continue; an empty one starts a new document.
        model: a run's name, a folder, a Hub id, a .gguf file or "base"; None is the latest run.
        checkpoint: one of the run's checkpoints, such as "step-000100".
        on_text: called with a sample's index and each piece of its text as soon as it is complete.

    Raises:
        UsageError: no prompt, or one that isn't valid Unicode.
        ModelError: the model isn't there, is damaged, or gives probabilities that aren't finite.
    """
    named = find_model(model, artifacts, checkpoint)
    if not prompts:
        raise UsageError("There is no prompt to continue.", 'Give one: ptk generate "Once upon a time"')
    for prompt in prompts:
        check_prompt(prompt)
    if config.generate.suffix and config.generate.chat:
        raise UsageError("--suffix and --chat don't work together.", "Use only one of them.")
    started = time.perf_counter()
    warnings: list[str] = []

    def warn(text: str) -> None:
        if text not in warnings:
            warnings.append(text)
            progress.warn(text)

    typed = prompts
    if config.generate.chat:
        template = need_chat_template(open_folders(named, artifacts)[1], named.name)
        prompts = template.prompts([{"role": "user", "content": prompt}] for prompt in typed)
    if on_text is not None:
        writer = open_model(named, config.generate, artifacts, progress)
        samples = writer.write(prompts, config.generate, warn, on_text, started)
        return GenerateResult(_as_typed(samples, typed, config.generate), warnings)
    progress.stage(f"loading {named.name}")
    writer = open_model(named, config.generate, artifacts, progress)
    progress.end_stage()
    total = len(prompts) * config.generate.samples * config.generate.max_tokens
    progress.stage(f"writing with {named.name}", total, "tokens")
    pieces = itertools.count(1)
    samples = writer.write(prompts, config.generate, warn, lambda *_: progress.advance(next(pieces)), started)
    progress.end_stage()
    return GenerateResult(_as_typed(samples, typed, config.generate), warnings)


def _as_typed(samples: Sequence[GeneratedText], typed: Sequence[str], config: GenerateConfig) -> list[GeneratedText]:
    """``samples`` with prompts and suffix as they were typed, and not as a template has them."""
    each, suffix = config.samples, config.suffix
    return [replace(sample, prompt=typed[index // each], suffix=suffix) for index, sample in enumerate(samples)]
