"""`ptk evaluate`: a model's numbers on held-out text, beside its base's."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from pretrain_cli.cli.console import count
from pretrain_cli.cli.options import Session, command, words


@command(
    "evaluate.on",
    "evaluate.sample",
    "evaluate.stride",
    "evaluate.context",
    "evaluate.against_base",
    "evaluate.memorization",
    "evaluate.tasks",
    "evaluate.device",
    "evaluate.precision",
    "evaluate.seed",
)
def evaluate(
    session: Session,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs, folders or hub ids; without one the latest run."),
    ] = None,
) -> None:
    """Score models: bits per byte, loss, perplexity and next-token accuracy.

    On the held-out rows and on general English, or on any text with [bold]--on[/]. Bits per byte compare across
    tokenizers; losses per token don't.
    """
    from pretrain_cli.evaluation.run import evaluate as run_evaluate

    with session.progress() as progress:
        result = run_evaluate(session.config, session.artifacts, progress, models=words(models))
    session.console.result("Scores (lower is better, but for accuracy)", [], result)
    if session.console.speaks:
        session.console.out.print(_table(result))
        for comparison in result.comparison:
            session.console.text(comparison.sentence)
        session.console.text(f"Report: {result.page}")
    session.console.next('ptk generate "..."')


def _table(result: Any) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("text", "model"):
        table.add_column(column, overflow="fold")
    for column in ("bits/byte", "loss", "perplexity", "accuracy", "tokens"):
        table.add_column(column, justify="right")
    scores = [(text, model.name) for model in result.models for text in model.texts]
    order = list(dict.fromkeys(text.name for text, _ in scores))
    for text, model in sorted(scores, key=lambda pair: order.index(pair[0].name)):
        table.add_row(
            text.name, model, f"[bold]{text.bits_per_byte:.4f}[/]", f"{text.loss:.4f}", f"{text.perplexity:.2f}",
            f"{text.accuracy:.1%}", count(text.tokens),
        )  # fmt: skip
    return table
