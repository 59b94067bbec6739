"""The front door of evaluate: any number of models on any number of texts, with a verdict and a report."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config, EvaluateConfig
from pretrain_cli.errors import ModelError
from pretrain_cli.evaluation.blend_line import blended, check_blendable, check_line, draw_line, points_between
from pretrain_cli.evaluation.chat import has_chat_template, measure_chat
from pretrain_cli.evaluation.expected_time import announce, tokens_to_process
from pretrain_cli.evaluation.lm_eval_tasks import require_lm_eval, run_tasks
from pretrain_cli.evaluation.models import OpenModel, open_model
from pretrain_cli.evaluation.results import EvaluateResult, ModelScores, SampleTexts
from pretrain_cli.evaluation.sample_texts import choose_prompts, write_sample
from pretrain_cli.evaluation.score_figures import compare, score_figures
from pretrain_cli.evaluation.scoring import score_text
from pretrain_cli.evaluation.shared_context import shared_context
from pretrain_cli.evaluation.sums import TextSums
from pretrain_cli.evaluation.text_documents import Text
from pretrain_cli.evaluation.texts import collect_texts
from pretrain_cli.evaluation_report import FILE, free_name, write_report
from pretrain_cli.foreign import keep_aside
from pretrain_cli.formatting import count_of
from pretrain_cli.model.devices import Choice, choose_device, choose_precision, choose_threads
from pretrain_cli.model.files import count_weights
from pretrain_cli.model.names import NamedModel, base_name, base_of, find_model, open_folders
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.refusals import A_COPY, check_no_links, check_writable
from pretrain_cli.run_files import is_run
from pretrain_cli.run_outcome import RunOutcome, judge
from pretrain_cli.run_record import read_run_config, read_run_record
from pretrain_cli.storage import read_lines
from pretrain_cli.tokenizer.round_trip import FLATTERS, told

BATCH_TOKENS, CPU_BATCH_TOKENS = 8192, 1024
DOUBTS_SHOWN = 3
EVERY_PAIR_UP_TO = 3


@dataclass(frozen=True)
class Arithmetic:
    """What all models are computed on and in, and why."""

    device: str
    dtype: torch.dtype
    reason: str


@dataclass(frozen=True)
class ScoredModel:
    """One model's figures, the sums they come from, by text, and what it wrote after each prompt.

    ``outcome`` is that of the run whose finished model it is.
    """

    scores: ModelScores
    sums: dict[str, TextSums]
    written: dict[str, str]
    warnings: list[str]
    outcome: RunOutcome | None = None

    @property
    def early(self) -> bool:
        """Whether its run had hardly begun when it ended."""
        return self.outcome is not None and self.outcome.early


def evaluate(
    config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, models: Sequence[str] = ()
) -> EvaluateResult:
    """Score ``models`` on the texts of ``config.evaluate`` and write report.json and report.html.

    Without names, the latest run is scored together with the base it continued from. Two or three models are compared
    pair by pair; of more, the first is compared with each other one. Compared models see the same passages.

    Raises:
        ModelError: a model isn't there, is damaged, or gives probabilities that aren't finite.
        DataError: a text isn't there or is too short.
        UsageError: the report can't be written.
        MissingDependencyError: lm-eval tasks without lm-eval.
    """
    started = time.perf_counter()
    if config.evaluate.tasks:
        require_lm_eval()
    named = choose_models(config, artifacts, models)
    texts = collect_texts(config, artifacts)
    for text in texts:
        if text.held_out:
            progress.note(f"{text.name} is {text.held_out}")
        if text.unread:
            progress.note(f"Files of {text.name} that aren't read: {text.unread}")
        if text.lost:
            more = f", and {len(text.lost) - 1:,} more" if len(text.lost) > 1 else ""
            progress.warn(f"{text.name} is scored without what can't be read: {text.lost[0].rstrip('.')}{more}.")
        for doubt in text.doubts[:DOUBTS_SHOWN]:
            progress.warn(doubt)
    check_line(config, named, texts)
    between = points_between(config)
    if between:
        check_blendable(named[0], named[1], artifacts)
    arithmetic = _choose_arithmetic(config)
    context = shared_context(named, config.evaluate.context)
    prompts = choose_prompts(_given_prompts(config, named[0]), texts, config.evaluate.samples)
    others = [weights_at_hand(entry, artifacts) for entry in named[1:]]
    folder = _report_folder(named[0], artifacts)
    check_no_links(folder)
    check_writable(folder, A_COPY)
    report = folder / f"{free_name(folder, [text.name for text in texts], config.evaluate.sample)}.json"
    scored: list[ScoredModel] = []
    openings: list[contextlib.AbstractContextManager[NamedModel]] = [contextlib.nullcontext(entry) for entry in named]
    openings += [blended(named[0], named[1], weight, artifacts) for weight in between]
    for opening in openings:
        with opening as entry:
            opened = open_model(entry, artifacts, arithmetic.device, arithmetic.dtype, context)
            if not scored:
                announce(opened, texts, [*others, *(others[:1] * len(between))], _stride(config), progress)
            outcome = _outcome(entry)
            scored.append(_score_model(opened, texts, prompts, config, arithmetic, artifacts, outcome, progress))
            del opened
        gc.collect()
    line = [entry.scores for entry in scored]
    chat = None
    if config.evaluate.chat:
        chat = measure_chat(named, artifacts, arithmetic.device, arithmetic.dtype, config.evaluate.seed, progress)
    elif len(named) > 1 and named[-1].name == "base" and has_chat_template(named[-1], artifacts):
        progress.note("The base is tuned for chat. To measure what is left of that: ptk evaluate --chat")
    if report.name != FILE:
        progress.note(f"The figures in {folder / FILE} are of other texts, and stay there.")
    result = EvaluateResult(
        models=[entry.scores for entry in scored],
        comparison=[
            compare(text.name, (one.scores.name, one.sums[text.name]), (two.scores.name, two.sums[text.name]),
                    config.evaluate.seed, early=one.early or two.early)
            for one, two in _pairs(scored)
            for text in texts
        ],
        report=report,
        page=report.with_suffix(".html"),
        seconds=time.perf_counter() - started,
        warnings=list(dict.fromkeys(warning for entry in scored for warning in entry.warnings)),
        samples=[
            SampleTexts(prompt, {entry.scores.name: entry.written[prompt] for entry in scored})
            for prompt in dict.fromkeys(prompts)
        ],
        held_out=next((text.held_out for text in texts if text.held_out), ""),
        chat=chat,
        blend=draw_line(line[0], line[1], dict(zip(between, line[2:], strict=True))) if config.evaluate.blend else None,
    )  # fmt: skip
    for warning in result.warnings:
        progress.warn(warning)
    _write(result, config, named[0], progress)
    return result


def choose_models(config: Config, artifacts: Artifacts, names: Sequence[str]) -> list[NamedModel]:
    """The models to score: those named, or the latest run; with one run alone, its base too."""
    chosen = [find_model(name, artifacts) for name in names] or [find_model(None, artifacts)]
    run = chosen[0].run
    if len(chosen) == 1 and run is not None and config.evaluate.against_base and base_name(run):
        chosen.append(base_of(run, artifacts))
    names = [model.name for model in chosen]
    # Folders are often all called "model": those are named by their whole path.
    return [replace(model, name=model.location) if names.count(model.name) > 1 else model for model in chosen]


def weights_at_hand(named: NamedModel, artifacts: Artifacts) -> int:
    """How many weights the model has, each looked at; 0 where they aren't safetensors files on this disk.

    Raises:
        ModelError: it is damaged. Found only after other models were scored, that would cost their scores.
    """
    folder = Path(open_folders(named, artifacts)[0])
    return count_weights(folder) if folder.is_dir() else 0


def _pairs(models: list[ScoredModel]) -> list[tuple[ScoredModel, ScoredModel]]:
    """Every pair of up to three models; of more, the first with each other one."""
    if len(models) <= EVERY_PAIR_UP_TO:
        return list(itertools.combinations(models, 2))
    return [(models[0], other) for other in models[1:]]


def _given_prompts(config: Config, first: NamedModel) -> Sequence[str]:
    """Prompts that are asked for now, or were in the training of the first model."""
    if config.train.sample_prompts or first.run is None:
        return config.train.sample_prompts
    trained = read_run_config(first.run).get("train", {})
    return [str(prompt) for prompt in trained.get("sample_prompts", ())]


def _stride(config: Config) -> int | None:
    return config.evaluate.stride if isinstance(config.evaluate.stride, int) else None


def _score_model(
    model: OpenModel,
    texts: list[Text],
    prompts: Sequence[str],
    config: Config,
    arithmetic: Arithmetic,
    artifacts: Artifacts,
    outcome: RunOutcome | None,
    progress: Progress,
) -> ScoredModel:
    sums = {text.name: _score(model, text, config, progress) for text in texts}
    scores = ModelScores(
        name=model.name,
        location=model.location,
        parameters=model.parameters,
        texts=[score_figures(name, found, config.evaluate.seed) for name, found in sums.items()],
        settings=_settings(model, config, arithmetic),
        **_extras(model, texts, config, artifacts, progress),
    )
    written = {prompt: write_sample(model, prompt) for prompt in prompts}
    warnings = _warnings(model, sums)
    if outcome is not None and outcome.told:
        warnings.insert(0, f"{model.name}: {outcome.told}")
    return ScoredModel(scores, sums, written, warnings, outcome)


def _outcome(named: NamedModel) -> RunOutcome | None:
    """What became of the run whose finished model this is; None for a checkpoint, or a model that is no run's."""
    record = read_run_record(named.run) if named.run is not None and named.step is None else None
    return judge(record, read_lines(named.run.metrics)) if named.run is not None and record is not None else None


def _score(model: OpenModel, text: Text, config: Config, progress: Progress) -> TextSums:
    progress.stage(f"scoring {text.name} with {model.name}", text.n_bytes, "bytes")
    expected = tokens_to_process(model, text, _stride(config))
    started = time.perf_counter()

    def on_bytes(n_bytes: int, tokens: int, processed: int) -> None:
        elapsed_s = max(time.perf_counter() - started, 1e-9)
        left_s = max(0.0, elapsed_s * (expected / processed - 1))
        progress.advance(n_bytes, tokens_per_second=tokens / elapsed_s, eta_s=left_s)

    batch_tokens = _batch_tokens(model, config)
    sums = score_text(model, text, stride=_stride(config), batch_tokens=batch_tokens, on_bytes=on_bytes)
    progress.end_stage()
    return sums


def _batch_tokens(model: OpenModel, config: Config) -> int:
    """As asked, or one window on a CPU, where each core takes its own and keeps it in the cache."""
    if isinstance(config.evaluate.batch_tokens, int):
        return config.evaluate.batch_tokens
    return max(model.context, CPU_BATCH_TOKENS) if model.device.type == "cpu" else BATCH_TOKENS


def _warnings(model: OpenModel, sums: dict[str, TextSums]) -> list[str]:
    found = []
    for name, text in sums.items():
        lost = told(text.back.record())
        if text.unencoded_bytes:
            found.append(
                f"The tokenizer of {model.name} can't express {count_of(text.unencoded_bytes, 'byte')} of '{name}'. "
                "They count as bytes but cost it nothing, so its score is too good."
            )
        elif lost:
            found.append(f"The tokenizer of {model.name} doesn't give '{name}' back: it loses {lost}. {FLATTERS}")
    return found


def _settings(model: OpenModel, config: Config, arithmetic: Arithmetic) -> dict[str, object]:
    return {
        "context": model.context,
        "stride": config.evaluate.stride if config.evaluate.stride != "auto" else model.context // 2,
        "precision": str(arithmetic.dtype).removeprefix("torch."),
        "device": str(model.device),
        "device_reason": arithmetic.reason,
        "sample_bytes": config.evaluate.sample,
        "seed": config.evaluate.seed,
    }


def _extras(
    model: OpenModel, texts: list[Text], config: Config, artifacts: Artifacts, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Memorization and lm-eval tasks, where they are asked for."""
    found: dict[str, dict[str, Any]] = {}
    if config.evaluate.memorization:
        from pretrain_cli.evaluation.memorization import measure_memorization

        found["memorization"] = measure_memorization(model, texts, artifacts, config.evaluate.seed, progress)
    if config.evaluate.tasks:
        found["tasks"] = run_tasks(model, config.evaluate.tasks, progress)
    return found


def _choose_arithmetic(config: Config) -> Arithmetic:
    """Device and precision; sets torch's threads."""
    device = choose_device(config.evaluate.device)
    precision = choose_precision(config.evaluate.precision, device.value)
    if precision.value == "fp16":  # whose range not every model's logits keep to
        precision = Choice("fp32", "the GPU has no bf16")
    elif config.evaluate.precision == EvaluateConfig.model_fields["precision"].default:
        precision = Choice(precision.value, "so that scores compare")
    if torch.device(device.value).type == "cpu":
        torch.set_num_threads(choose_threads("auto").value)
    dtype = torch.bfloat16 if precision.value == "bf16" else torch.float32
    return Arithmetic(device.value, dtype, f"{device.reason}; {precision.value}: {precision.reason}")


def _report_folder(first: NamedModel, artifacts: Artifacts) -> Path:
    if first.run is not None:
        return first.run.evaluation
    return artifacts.root / "evaluation" / first.name.replace("/", "--")


def _write(result: EvaluateResult, config: Config, first: NamedModel, progress: Progress) -> None:
    from pretrain_cli.evaluation.report_page import write_page

    if first.run is not None and not is_run(first.run) and not Path(first.location).exists():
        raise ModelError(
            f"Run '{first.run.name}' was removed while it was scored, so there is no place for its report.",
            "Score another one. Runs: ptk runs list",
        )
    for kept in filter(None, map(keep_aside, (result.report, result.page))):
        progress.warn(kept)
        result.warnings.append(kept)
    write_report(result.report, result.to_json())
    write_page(result, first.run, config)
