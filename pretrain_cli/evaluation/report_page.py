"""Writes report.html: the verdict first, then figures, curves, where it changed, samples, settings and machine."""

from __future__ import annotations

import html
import json
import platform
from typing import Any

from pretrain_cli.addresses import redact_all
from pretrain_cli.artifacts import RunFolder
from pretrain_cli.config.model import Config
from pretrain_cli.evaluation.report_extras import chat_section, line_section
from pretrain_cli.evaluation.results import Comparison, EvaluateResult, ModelScores, TextScore
from pretrain_cli.evaluation.texts import GENERAL, VALIDATION
from pretrain_cli.formatting import byte_size, count_of, duration, exact, percent, score
from pretrain_cli.model.names import base_name
from pretrain_cli.processes import available_cores
from pretrain_cli.run_outcome import judge
from pretrain_cli.run_record import RunRecord, read_run_record
from pretrain_cli.storage import read_lines, write_text
from pretrain_cli.webpage import charts, document, facts, interval_chart, line_chart, quote, table

CURVES = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
    "memory_mb": "memory (MB)",
}
BUCKETS = (("by_position", "tokens before it, at least"), ("by_frequency", "occurrences in the text, at least"))
HARDEST = 10
OPENING_CHARACTERS = 70


def _told(config: Config) -> str:
    return json.dumps(redact_all(config.model_dump(mode="json")), indent=2, ensure_ascii=False)


def write_page(result: EvaluateResult, run: RunFolder | None, config: Config) -> None:
    """Write ``result.page``."""
    title = f"Evaluation of {result.models[0].name}"
    lines = read_lines(run.metrics) if run else []
    continued = _continues(run, [model.name for model in result.models])
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *verdict_and_scores(result, continued),
        *_section("From base to run", line_section(result.blend)),
        *_section("Chat", chat_section(result.chat)),
        *_section("Training", _training(run, lines)),
        *_by_source(result.models),
        *_section("By position and by token frequency", charts(_buckets(result.models))),
        *_documents(result),
        *sample_texts(result, continued),
        *training_samples(run),
        *_memorization(result.models),
        *_tasks(result.models),
        "<h2>Settings</h2>",
        facts(_settings(result.models)),
        _folded("All settings of the evaluation", f"<pre>{html.escape(_told(config))}</pre>"),
        "<h2>Machine</h2>",
        facts(_machine(run, result)),
    ]
    write_text(result.page, document(title, parts))


def verdict_and_scores(result: EvaluateResult, continued: bool = False) -> list[str]:
    """What the page begins with: the verdict, the warnings, and the table of scores."""
    return [
        _verdicts(result, continued),
        *(f'<p class="note">Warning: {html.escape(warning)}</p>' for warning in result.warnings),
        *_before_and_after(result, continued),
    ]


def _section(heading: str, content: str) -> list[str]:
    return [f"<h2>{html.escape(heading)}</h2>", content] if content else []


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def _continues(run: RunFolder | None, names: list[str]) -> bool:
    """Whether the second of two models is the base that ``run``, the first, continued from."""
    return run is not None and len(names) == 2 and names[1] in ("base", "untrained", base_name(run))


def _verdicts(result: EvaluateResult, continued: bool) -> str:
    cards = [_verdict(entry, continued) for entry in result.comparison]
    if not cards:
        cards = [
            f'<div class="verdict"><b>{text.bits_per_byte:.4f} bits per byte on {html.escape(text.name)}</b>'
            f"{html.escape(_between(text))}</div>"
            for text in result.models[0].texts
        ]
    return f'<div class="verdicts">{"".join(cards)}</div>'


def _verdict(entry: Comparison, continued: bool) -> str:
    kind = entry.verdict if entry.verdict in ("better", "worse") else ""
    what = " (what it forgot)" if continued and entry.text == GENERAL and entry.verdict == "worse" else ""
    sure = f"; 95% interval {entry.interval[0]:+.4f} to {entry.interval[1]:+.4f}" if entry.interval else ""
    told = f"{entry.first} compared with {entry.second}: {entry.difference:+.4f} bits per byte{sure}"
    heading = f"{entry.verdict.capitalize()} on {entry.text}{what}"
    return f'<div class="verdict {kind}"><b>{html.escape(heading)}</b>{html.escape(told)}</div>'


def _between(text: TextScore) -> str:
    found = text.bits_per_byte_interval
    return f"95% interval {found[0]:.4f} to {found[1]:.4f}" if found else "too little text for an interval"


def _before_and_after(result: EvaluateResult, continued: bool) -> list[str]:
    models = result.models
    rows: list[Any] = []
    values: dict[str, dict[str, tuple[float, float, float]]] = {}
    for place, first in enumerate(models[0].texts):
        of = f": {result.held_out}" if first.name == VALIDATION and result.held_out else ""
        rows.append(f"{first.name}: {exact(first.bytes)} bytes, {count_of(first.documents, 'document')}{of}")
        for model in reversed(models):  # what came before is shown first
            text = model.texts[place]
            low_high = text.bits_per_byte_interval
            small = f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else "too little text"
            rows.append(
                (model.name, (f"{text.bits_per_byte:.4f}", small), (f"{text.perplexity:.2f}", f"loss {text.loss:.3f}"),
                 f"{text.accuracy:.1%}", f"{text.accuracy_top5:.1%}")
            )  # fmt: skip
            values.setdefault(first.name, {})[model.name] = (
                text.bits_per_byte,
                *(low_high or (float("nan"), float("nan"))),
            )
    header = ("model", "bits per byte", "perplexity", "top-1", "top-5")
    chart = interval_chart("Bits per byte, with 95% intervals", "lower is better", values)
    heading = "Before and after" if continued else "Scores"
    return [f"<h2>{heading}</h2>", table(header, rows), charts([chart])]


def _by_source(models: list[ModelScores]) -> list[str]:
    rows = []
    for place, text in enumerate(models[0].texts):
        for source in text.by_source:
            bits = [model.texts[place].by_source.get(source, float("nan")) for model in reversed(models)]
            change = [f"{bits[-1] - bits[0]:+.4f}"] if len(models) == 2 else []
            rows.append((f"{text.name}: {source}", *(f"{value:.4f}" for value in bits), *change))
    names = [model.name for model in reversed(models)]
    header = ("source", *names, *(["change"] if len(models) == 2 else []))
    return _section("By source, in bits per byte", table(header, rows) if rows else "")


def _training(run: RunFolder | None, lines: list[dict[str, Any]]) -> str:
    """Planned against reached, training against validation loss, and the curves."""
    record = read_run_record(run) if run is not None else None
    if record is None:
        return charts(training_charts(lines))
    outcome = judge(record, lines)
    shown: dict[str, object] = {}
    if outcome.steps:
        shown["trained"] = f"{count_of(outcome.steps, 'step')}, {count_of(record.tokens, 'token')}"
    if outcome.planned_steps:
        share = percent(outcome.steps / outcome.planned_steps)
        shown["planned"] = f"{count_of(outcome.planned_steps, 'step')}, of which {share} were made"
    if outcome.gap is not None:
        shown["loss"] = (
            f"training {score(outcome.train_loss)} (mean of the last tenth), "
            f"validation {score(outcome.validation_loss)}: a gap of {outcome.gap:+.3f}"
        )
    if outcome.told:
        shown["outcome"] = outcome.told
    return facts(shown) + charts(training_charts(lines))


def training_charts(lines: list[dict[str, Any]]) -> list[str]:
    """Charts of metrics.jsonl: losses, learning rate, gradient norm, speed and memory by step."""

    def points(key: str) -> list[tuple[float, float]]:
        return [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]

    losses = {"training": points("loss"), "validation": points("validation_loss")}
    return [line_chart("loss", "step", losses)] + [
        line_chart(title, "step", {"": points(key)}) for key, title in CURVES.items()
    ]


def _buckets(models: list[ModelScores]) -> list[str]:
    found = []
    for place, text in enumerate(models[0].texts):
        for field, label in BUCKETS:
            curves = {
                model.name: [(row["from"], row["loss"]) for row in getattr(model.texts[place], field)]
                for model in reversed(models)
            }
            found.append(line_chart(f"{text.name}: loss per token", label, curves, logarithmic=True))
    return found


def _documents(result: EvaluateResult) -> list[str]:
    parts = []
    for entry in result.comparison:
        if len(entry.changed) > 1:
            rows = [
                ((changed.name, changed.opening[:OPENING_CHARACTERS]), f"{changed.second:.3f}", f"{changed.first:.3f}",
                 f"{changed.change:+.3f}")
                for changed in entry.changed
            ]  # fmt: skip
            parts += [
                f"<h3>{html.escape(entry.text)}: the {len(rows)} documents that changed most</h3>",
                table(("document", entry.second, entry.first, "change"), rows),
            ]
    for text in result.models[0].texts:
        if text.documents > 1:
            hardest = [
                ((one.name, one.opening[:OPENING_CHARACTERS]), exact(one.bytes), f"{one.bits_per_byte:.3f}")
                for one in text.by_document[:HARDEST]
            ]
            summary = f"{text.name}: the hardest documents for {result.models[0].name}"
            parts.append(_folded(summary, table(("document", "bytes", "bits per byte"), hardest)))
    return _section("By document, in bits per byte", "\n".join(parts))


def sample_texts(result: EvaluateResult, continued: bool = False) -> list[str]:
    """What each model wrote after the same prompts, with a heading."""
    parts = []
    for sample in result.samples:
        quotes = "".join(quote(each.name, sample.prompt, sample.texts[each.name]) for each in reversed(result.models))
        parts.append(f'<div class="texts">{quotes}</div>')
    heading = "Samples before and after" if continued else "Samples"
    return _section(heading, "<br>".join(parts))


def training_samples(run: RunFolder | None) -> list[str]:
    """What the model wrote at the first and at the last step that it wrote at, with a heading."""
    lines = [line for line in read_lines(run.samples) if "text" in line] if run else []
    prompts = dict.fromkeys(str(line.get("prompt", "")) for line in lines)
    parts = []
    for prompt in prompts:
        told = [line for line in lines if line.get("prompt") == prompt]
        ends = [told[0], told[-1]] if len(told) > 1 else told
        quotes = "".join(quote(f"step {line['step']}", prompt, str(line["text"])) for line in ends)
        parts.append(f'<div class="texts">{quotes}</div>')
    return _section("Samples during training", "<br>".join(parts))


def _memorization(models: list[ModelScores]) -> list[str]:
    names = list(dict.fromkeys(name for model in models for name in model.memorization))
    rows = [
        (name, *((f"{found.share:.1%}", f"of {found.passages}") if (found := model.memorization.get(name)) else "–"
                 for model in reversed(models)))
        for name in names
    ]  # fmt: skip
    header = ("passages of", *(model.name for model in reversed(models)))
    note = '<p class="note">Passages of 64 tokens whose second half the model writes word for word after the first.</p>'
    return _section("Memorization", table(header, rows) + note if rows else "")


def _tasks(models: list[ModelScores]) -> list[str]:
    rows = [
        (
            task,
            metric.replace(",none", ""),
            *(_task_value(model.tasks.get(task, {}), metric) for model in reversed(models)),
        )
        for task, found in models[0].tasks.items()
        for metric, value in found.items()
        if isinstance(value, int | float) and "_stderr" not in metric and metric != "sample_len"
    ]
    header = ("task", "metric", *(model.name for model in reversed(models)))
    return _section("Tasks (lm-eval)", table(header, rows) if rows else "")


def _task_value(found: dict[str, Any], metric: str) -> str:
    name, _, way = metric.partition(",")
    value, error = found.get(metric), found.get(f"{name}_stderr,{way}")
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.4f} ± {error:.4f}" if isinstance(error, int | float) else f"{value:.4f}"


def _settings(models: list[ModelScores]) -> dict[str, object]:
    shown: dict[str, object] = {}
    for model in reversed(models):
        shown[model.name] = f"{count_of(model.parameters, 'parameter')}, {model.location}"
    settings = {**models[0].settings, "sample_bytes": models[0].settings.get("sample_bytes") or "all"}
    return shown | {name.replace("_", " "): value for name, value in settings.items()}


def _machine(run: RunFolder | None, result: EvaluateResult) -> dict[str, str]:
    import psutil
    import torch

    shown: dict[str, str] = {}
    record = read_run_record(run) if run is not None else None
    if record is not None:
        shown["trained on"] = ", ".join(word for word in (record.device, record.precision, _threads(record)) if word)
        shown["training"] = f"{count_of(record.steps, 'step')}, {count_of(record.tokens, 'token')}"
        if record.started:
            shown["training"] += f", started {record.started.replace('T', ' ')}"
        shown["with"] = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    shown["evaluated on"] = (
        f"{platform.platform()}, {count_of(available_cores(), 'core')}, "
        f"{byte_size(psutil.virtual_memory().total)} of memory, "
        f"{count_of(torch.get_num_threads(), 'thread')}"
    )
    shown["evaluated with"] = f"Python {platform.python_version()}, torch {torch.__version__}"
    shown["evaluation took"] = duration(result.seconds)
    return shown


def _threads(record: RunRecord) -> str:
    threads = "an unknown number of threads" if record.threads is None else count_of(record.threads, "thread")
    return threads + (f", {count_of(record.world_size, 'process', 'processes')}" if record.world_size != 1 else "")
