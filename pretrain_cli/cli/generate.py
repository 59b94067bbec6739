"""`ptk generate`: text from a trained model, streamed."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

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
    streams = session.console.speaks and len(texts) * session.config.generate.samples == 1
    shown: dict[str, Any] = {}
    for name in [model] if against is None else [model, against]:
        title = f"--- {name or 'the newest run'}" if against is not None else ""
        if title:
            session.console.text(title)
        if streams:
            session.console.text(texts[0], end="")
        with session.progress() as progress:
            shown[name or "run"] = result = run_generate(
                session.config, session.artifacts, progress, prompts=texts, model=name,
                checkpoint=checkpoint if name == model else None,
                on_text=(lambda _, text: session.console.text(text, end="")) if streams else None,
            )  # fmt: skip
        session.console.text("\n" if streams else _together(result))
    samples = [sample for result in shown.values() for sample in result.samples]
    if session.console.json:
        session.console.print_json({"samples": samples, **({"models": shown} if against else {})})
    session.console.next("ptk evaluate", 'ptk generate "..." --samples 3')


def _read_prompts(prompts: list[str]) -> list[str]:
    """The prompts as typed, with "-" replaced by what standard input holds."""
    if not prompts:
        raise UsageError("No prompt.", 'Give one: ptk generate "Once upon a time", or - for standard input.')
    return [sys.stdin.read().rstrip("\n") if prompt == "-" else prompt for prompt in prompts]


def _together(result: Any) -> str:
    """Several samples, parted by a line of dashes."""
    return "\n----\n".join(sample.prompt + sample.text for sample in result.samples) + "\n"
