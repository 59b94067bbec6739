"""Implements `ptk evaluate`: scores models on held-out text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pretrain_cli.cli.console import Console
from pretrain_cli.cli.fields import Flag
from pretrain_cli.cli.options import command, words
from pretrain_cli.cli.session import Session, loading
from pretrain_cli.formatting import count, count_of, percent

if TYPE_CHECKING:
    from pretrain_cli.evaluation.results import EvaluateResult


@command(
    "evaluate.on",
    "evaluate.sample",
    "evaluate.stride",
    "evaluate.context",
    "evaluate.against_base",
    "evaluate.blend",
    "evaluate.chat",
    "evaluate.memorization",
    "evaluate.tasks",
    "evaluate.device",
    "evaluate.precision",
    "evaluate.seed",
    Flag("data.on_error"),
    examples=(
        "ptk evaluate",
        "ptk evaluate first second",
        "ptk evaluate --on mine=other.txt --on general --sample 20000",
        "ptk evaluate first --blend 0,0.25,0.5,0.75,1",
        "ptk evaluate first --memorization --json",
    ),
)
def evaluate(
    session: Session,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs, folders or Hub ids. Default: the latest run."),
    ] = None,
) -> None:
    """Score models: bits per byte, loss, perplexity and next-token accuracy.

    Scores the held-out rows and general English, or any text given with [bold]--on[/]. Compare models with different
    tokenizers by bits per byte; their losses per token are not comparable.
    """
    from pretrain_cli.model.names import find_model

    for name in words(models) or (None,):  # report a wrong name before the heavy libraries load
        find_model(name, session.artifacts)

    with session.progress() as progress:
        with loading(progress):
            from pretrain_cli.evaluation.run import evaluate as run_evaluate

        result = run_evaluate(session.config, session.artifacts, progress, models=words(models))
    session.console.result("Scores (lower is better, except top-1 and top-5 accuracy)", [], result)
    if session.console.speaks:
        _show(session.console, result)
    session.console.next('ptk generate "..."')


def _show(console: Console, result: EvaluateResult) -> None:
    console.table(_table(console, result))
    for model in result.models:
        for name, found in model.memorization.items():
            passages = count_of(found.passages, "passage")
            console.text(f"{model.name} continues {percent(found.share, 1)} of {passages} of {name} word for word")
        for task, values in model.tasks.items():
            figures = [
                f"{key.partition(',')[0]} {value:.4f}" for key, value in values.items() if _is_figure(key, value)
            ]
            console.text(f"{model.name} on {task}: {', '.join(figures)}")
    for comparison in result.comparison:
        console.sentence(comparison.sentence)
    for sentence in result.chat.sentences if result.chat is not None else ():
        console.sentence(sentence)
    if result.blend is not None:
        console.sentence(result.blend.sentence)
    console.text(f"Report: {result.page}")


def _is_figure(key: str, value: object) -> bool:
    return isinstance(value, float) and "stderr" not in key


def _table(console: Console, result: EvaluateResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("text", "model"):
        table.add_column(column, overflow="fold")
    more = () if console.narrow else ("top-5", "loss", "tokens")
    for column in ("bits/byte", "95% interval", "perplexity", "top-1", *more):
        table.add_column(column, justify="right", no_wrap=True)
    scores = [(text, model.name) for model in result.models for text in model.texts]
    order = list(dict.fromkeys(text.name for text, _ in scores))
    for text, model in sorted(scores, key=lambda pair: order.index(pair[0].name)):
        found = text.bits_per_byte_interval
        extra = (f"{text.accuracy_top5:.1%}", f"{text.loss:.4f}", count(text.tokens)) if more else ()
        table.add_row(
            escape(text.name), escape(model), f"[bold]{text.bits_per_byte:.4f}[/]",
            f"{found[0]:.4f} to {found[1]:.4f}" if found else "too short", f"{text.perplexity:.2f}",
            f"{text.accuracy:.1%}", *extra,
        )  # fmt: skip
    return table
