"""`ptk generate`: text from a trained model, streamed."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pretrain_cli.cli.console import to_plain
from pretrain_cli.cli.options import Flag, Session, command
from pretrain_cli.errors import UsageError


@command(
    "generate.max_tokens",
    "generate.temperature",
    "generate.top_p",
    "generate.top_k",
    "generate.min_p",
    "generate.repetition_penalty",
    "generate.greedy",
    "generate.seed",
    Flag("generate.samples", short="-n"),
    "generate.stop",
    "generate.engine",
    "generate.device",
    "generate.precision",
)
def generate(
    session: Session,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Text to go on from; - reads standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "--run", metavar="RUN", help="A run, a folder, a hub id or 'base'.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="STEP", help="A checkpoint of the run: step-000100.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Show another model's text too: base, or a run.")
    ] = None,
) -> None:
    """Write text that goes on from a prompt, with the newest run."""
    from pretrain_cli.generation.run import generate as run_generate

    texts = _read_prompts(prompts or [])
    names = [model] if against is None else [model, against]
    streams = session.console.speaks and len(texts) * session.config.generate.samples * len(names) == 1
    if streams:
        session.console.text(texts[0], end="")
    results = []
    for name in names:
        with session.progress() as progress:
            results.append(
                run_generate(
                    session.config,
                    session.artifacts,
                    progress,
                    prompts=texts,
                    model=name,
                    checkpoint=checkpoint if name == model else None,
                    on_text=(lambda _, text: session.console.text(text, end="")) if streams else None,
                )
            )
    _show(session, names, results, streams)
    session.console.next("ptk evaluate", 'ptk generate "..." --samples 3')


def _show(session: Session, names: list[str | None], results: list[Any], streamed: bool) -> None:
    if session.console.json:
        plain = [to_plain(result)["samples"] for result in results]
        models = [{"model": name or "latest", "samples": own} for name, own in zip(names, plain, strict=True)]
        every = [sample for own in plain for sample in own]
        session.console.print_json({"samples": every, **({"models": models} if len(names) > 1 else {})})
    elif streamed:
        session.console.text("\n")
    else:
        for name, result in zip(names, results, strict=True):
            if len(names) > 1:
                session.console.text(f"=== {name or 'latest run'} ===")
            session.console.text(_together(result))


def _read_prompts(prompts: list[str]) -> list[str]:
    """The prompts as typed, with "-" replaced by what standard input holds."""
    if not prompts:
        raise UsageError("No prompt.", 'Give one: ptk generate "Once upon a time", or - for standard input.')
    return [sys.stdin.read().rstrip("\n") if prompt == "-" else prompt for prompt in prompts]


def _together(result: Any) -> str:
    """Several samples, parted by a line of dashes."""
    return "\n----\n".join(sample.prompt + sample.text for sample in result.samples) + "\n"
