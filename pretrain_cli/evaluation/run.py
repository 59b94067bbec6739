"""The front door of evaluate: any number of models on any number of texts, with a verdict and a report."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.evaluation.opening import OpenModel, open_model, shared_context
from pretrain_cli.evaluation.results import EvaluateResult, ModelScores, SampleTexts
from pretrain_cli.evaluation.samples import choose_prompts, write_sample
from pretrain_cli.evaluation.scoring import score_text, tokens_per_second, tokens_to_process
from pretrain_cli.evaluation.summary import compare, summarise
from pretrain_cli.evaluation.tally import Tally
from pretrain_cli.evaluation.tasks import require_lm_eval, run_tasks
from pretrain_cli.evaluation.texts import Text, collect_texts
from pretrain_cli.evaluation_report import FILE, PAGE, write_report
from pretrain_cli.model.devices import choose_device, choose_precision, choose_threads
from pretrain_cli.model.files import count_weights
from pretrain_cli.model.names import NamedModel, base_name, base_of, find_model, open_folders
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.run_record import read_run_config

Compared = tuple[str, dict[str, Tally]]
"""A model's name, and what it made of each text."""

BATCH_TOKENS, CPU_BATCH_TOKENS = 8192, 1024
EVERY_PAIR_UP_TO = 3
FIRST_VERDICT_S = 60
PROBED_FROM_TOKENS = 4096
"""Fewer tokens than this take less time than asking how long they take."""


def evaluate(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, models: Sequence[str] = ()
) -> EvaluateResult:
    """Score ``models`` on the texts of ``config.evaluate`` and write report.json and report.html.

    Without names, the latest run is scored, and beside it the base it continued from. Two or three models are compared
    pair by pair, of more the first with each of the others, over the same passages.

    Raises:
        ModelError: a model isn't there, is damaged, or gives probabilities that aren't finite.
        DataError: a text isn't there or is too short.
        MissingDependencyError: lm-eval tasks without lm-eval.
    """
    started = time.perf_counter()
    if config.evaluate.tasks:
        require_lm_eval()
    named = choose_models(config, artifacts, models)
    texts = collect_texts(config, artifacts)
    device, dtype, reason = _arithmetic(config)
    context = shared_context(named, config.evaluate.context)
    warnings: list[str] = []
    scores: list[ModelScores] = []
    tallies: list[dict[str, Tally]] = []
    written: dict[str, dict[str, str]] = {}
    prompts = choose_prompts(_prompts(config, named[0]), texts, config.evaluate.samples)
    others = [_look_at(entry, artifacts) for entry in named[1:]]
    for entry in named:
        opened = open_model(entry, artifacts, device, dtype, context)
        if not scores:
            _announce(opened, texts, others, config, progress)
        found = {text.name: _score(opened, text, config, progress) for text in texts}
        warnings += _warnings(opened, found)
        scores.append(
            ModelScores(
                name=entry.name,
                location=entry.location,
                parameters=opened.parameters,
                texts=[summarise(name, tally, config.evaluate.seed) for name, tally in found.items()],
                settings=_settings(opened, config, dtype, reason),
                **_extras(opened, texts, config, artifacts, progress),
            )
        )
        tallies.append(found)
        for prompt in prompts:
            written.setdefault(prompt, {})[entry.name] = write_sample(opened, prompt)
        del opened
        gc.collect()
    named_tallies = [(entry.name, tally) for entry, tally in zip(named, tallies, strict=True)]
    comparison = [
        compare(text.name, (one, first[text.name]), (two, second[text.name]), config.evaluate.seed)
        for (one, first), (two, second) in _pairs(named_tallies)
        for text in texts
    ]
    folder = _report_folder(named[0], artifacts)
    seconds = time.perf_counter() - started
    result = EvaluateResult(
        scores,
        comparison,
        folder / FILE,
        folder / PAGE,
        seconds,
        list(dict.fromkeys(warnings)),
        [SampleTexts(prompt, told) for prompt, told in written.items()],
    )
    for warning in result.warnings:
        progress.warn(warning)
    _write(result, config, named[0])
    return result


def _pairs(models: list[Compared]) -> list[tuple[Compared, Compared]]:
    """Every pair of up to three models; of more, the first with each of the others."""
    if len(models) <= EVERY_PAIR_UP_TO:
        return list(itertools.combinations(models, 2))
    return [(models[0], other) for other in models[1:]]


def choose_models(config: Config, artifacts: Artifacts, names: Sequence[str]) -> list[NamedModel]:
    """The models to score: those named, or the latest run; with one run alone, its base beside it."""
    chosen = [find_model(name, artifacts) for name in names] or [find_model(None, artifacts)]
    run = chosen[0].run
    if len(chosen) == 1 and run is not None and config.evaluate.against_base and base_name(run):
        chosen.append(base_of(run, artifacts))
    names = [model.name for model in chosen]
    # Folders are often all called "model": those go by their whole path.
    return [replace(model, name=model.location) if names.count(model.name) > 1 else model for model in chosen]


def _prompts(config: Config, first: NamedModel) -> Sequence[str]:
    """Prompts that were asked for now, or in the training of the first model."""
    if config.train.sample_prompts or first.run is None:
        return config.train.sample_prompts
    trained = read_run_config(first.run).get("train", {})
    return [str(prompt) for prompt in trained.get("sample_prompts", ())]


def _look_at(named: NamedModel, artifacts: Artifacts) -> int:
    """How many weights the model has, each looked at; 0 where they aren't safetensors files at hand.

    Raises:
        ModelError: it is damaged: found after the models before it were scored, it would cost their scores.
    """
    folder = Path(open_folders(named, artifacts)[0])
    return count_weights(folder) if folder.is_dir() else 0


def _announce(model: OpenModel, texts: list[Text], others: list[int], config: Config, progress: Progress) -> None:
    """Say before the start how long it will take, and how to have a verdict within a minute.

    Each model is expected to take as long as it is large: ``others`` are the weights of those to come, 0 where unknown.
    """
    n_models = 1 + len(others)
    stride = config.evaluate.stride if isinstance(config.evaluate.stride, int) else None
    tokens = sum(tokens_to_process(model, text, stride) for text in texts)
    if tokens < PROBED_FROM_TOKENS:
        return
    times = 1 + sum(size or model.parameters for size in others) / model.parameters
    seconds = times * tokens / tokens_per_second(model)
    n_bytes = sum(text.n_bytes for text in texts)
    line = f"scoring {n_bytes:,} bytes with {n_models} model{'s' if n_models > 1 else ''}: about {seconds:.0f} s"
    if seconds > FIRST_VERDICT_S:
        share = round(n_bytes / len(texts) * 0.75 * FIRST_VERDICT_S / seconds, -3)
        line += f"; a first verdict within a minute: --sample {max(1000, int(share))}"
    progress.note(line)


def _score(model: OpenModel, text: Text, config: Config, progress: Progress) -> Tally:
    stride = config.evaluate.stride if isinstance(config.evaluate.stride, int) else None
    progress.stage(f"scoring {text.name} with {model.name}", text.n_bytes, "bytes")
    expected = tokens_to_process(model, text, stride)
    started = time.perf_counter()

    def on_bytes(n_bytes: int, tokens_per_second: float) -> None:
        left_s = max(0.0, expected / tokens_per_second - (time.perf_counter() - started))
        progress.advance(n_bytes, tokens_per_second=tokens_per_second, eta_s=left_s)

    tally = score_text(model, text, stride=stride, batch_tokens=_batch_tokens(model, config), on_bytes=on_bytes)
    progress.end_stage()
    return tally


def _batch_tokens(model: OpenModel, config: Config) -> int:
    """As asked, or a window on a CPU, where each core takes its own and keeps it in the cache."""
    if isinstance(config.evaluate.batch_tokens, int):
        return config.evaluate.batch_tokens
    return max(model.context, CPU_BATCH_TOKENS) if model.device.type == "cpu" else BATCH_TOKENS


def _warnings(model: OpenModel, found: dict[str, Tally]) -> list[str]:
    return [
        f"The tokenizer of {model.name} can't express {tally.unencoded_bytes} bytes of '{name}': they count as bytes, "
        "but cost it nothing, so its figure is too good."
        for name, tally in found.items()
        if tally.unencoded_bytes
    ]


def _settings(model: OpenModel, config: Config, dtype: torch.dtype, reason: str) -> dict[str, object]:
    return {
        "context": model.context,
        "stride": config.evaluate.stride if config.evaluate.stride != "auto" else model.context // 2,
        "precision": str(dtype).removeprefix("torch."),
        "device": str(model.device),
        "device_reason": reason,
        "sample_bytes": config.evaluate.sample,
        "seed": config.evaluate.seed,
    }


def _extras(
    model: OpenModel, texts: list[Text], config: Config, artifacts: Artifacts, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Memorisation and lm-eval tasks, where they are asked for."""
    found: dict[str, dict[str, Any]] = {}
    if config.evaluate.memorization:
        from pretrain_cli.evaluation.memorization import measure_memorization

        found["memorization"] = measure_memorization(model, texts, artifacts, config.evaluate.seed, progress)
    if config.evaluate.tasks:
        found["tasks"] = run_tasks(model, config.evaluate.tasks, progress)
    return found


def _arithmetic(config: Config) -> tuple[str, torch.dtype, str]:
    """Device, precision and why; sets torch's threads."""
    device = choose_device(config.evaluate.device)
    precision = choose_precision(config.evaluate.precision, device.value)
    if torch.device(device.value).type == "cpu":
        torch.set_num_threads(choose_threads("auto").value)
    dtype = torch.bfloat16 if precision.value == "bf16" else torch.float32
    return device.value, dtype, f"{device.reason}; {precision.value}: {precision.reason}"


def _report_folder(first: NamedModel, artifacts: Artifacts) -> Path:
    if first.run is not None:
        return first.run.evaluation
    return artifacts.root / "evaluation" / first.name.replace("/", "--")


def _write(result: EvaluateResult, config: Config, first: NamedModel) -> None:
    from pretrain_cli.evaluation.page import write_page

    write_report(result.report.parent, result.to_json())
    write_page(result, first.run, config)
