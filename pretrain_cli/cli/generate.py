"""`ptk generate`: text from a trained model, streamed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

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
    "generate.probabilities",
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
        str | None, typer.Option("--checkpoint", metavar="STEP", help="A checkpoint of the run, step-000100, or all.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Show another model's text too: base, or a run.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts-file", metavar="FILE", help="A file with a prompt a line.")
    ] = None,
) -> None:
    """Write text that goes on from a prompt, with the newest run."""
    texts = _read_prompts(prompts or [], prompts_file)
    voices = _voices(session, model, checkpoint, against)
    settings = session.config.generate
    streams = session.console.speaks and len(texts) * settings.samples * len(voices) == 1 and not settings.probabilities
    if streams:
        session.console.text(texts[0], end="")

    def show_piece(_: int, text: str) -> None:
        session.console.text(text, end="")

    from pretrain_cli.generation.run import generate as run_generate

    results = []
    for name, step in voices:
        with session.progress() as progress:
            results.append(
                run_generate(
                    session.config,
                    session.artifacts,
                    progress,
                    prompts=texts,
                    model=name,
                    checkpoint=step,
                    on_text=show_piece if streams else None,
                )
            )
    _show(session, voices, results, streams)
    session.console.next("ptk evaluate", 'ptk generate "..." --samples 3')


def _voices(
    session: Session, model: str | None, checkpoint: str | None, against: str | None
) -> list[tuple[str | None, str | None]]:
    """(model, checkpoint) of each text to write. Looked up first, so that a wrong name is said before anything else."""
    from pretrain_cli.model.names import checkpoints_of, find_model

    voices = [(model, checkpoint)]
    if checkpoint == "all":
        run = session.artifacts.existing_run(model)
        voices = [(run.name, step) for step in checkpoints_of(run)]
        if not voices:
            raise UsageError(
                f"Run '{run.name}' kept no checkpoint.", "Leave --checkpoint out to use its finished model."
            )
    if against is not None:
        voices.append((against, None))
    for name, step in voices:
        find_model(name, session.artifacts, step)
    return voices


def _show(session: Session, voices: list[tuple[str | None, str | None]], results: list[Any], streamed: bool) -> None:
    titles = ["@".join(part for part in (name or "latest", step) if part) for name, step in voices]
    if session.console.json:
        plain = [to_plain(result)["samples"] for result in results]
        models = [{"model": title, "samples": own} for title, own in zip(titles, plain, strict=True)]
        every = [sample for own in plain for sample in own]
        session.console.print_json({"samples": every, **({"models": models} if len(models) > 1 else {})})
    elif streamed:
        session.console.text("\n")
    elif session.console.speaks:
        for title, result in zip(titles, results, strict=True):
            if len(titles) > 1:
                session.console.out.print(f"[bold]{escape(title)}[/]")
            for index, sample in enumerate(result.samples):
                if index:
                    session.console.out.print("[dim]----[/]")
                session.console.out.print(_text_of(sample))
            session.console.text("")


def _read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """The prompts as typed and those of the file, with "-" replaced by what standard input holds."""
    if file is not None:
        prompts = [*prompts, *(line for line in file.read_text(encoding="utf-8").splitlines() if line.strip())]
    if not prompts:
        raise UsageError("No prompt.", 'Give one: ptk generate "Once upon a time", or - for standard input.')
    return [sys.stdin.read().rstrip("\n") if prompt == "-" else prompt for prompt in prompts]


def _text_of(sample: Any) -> Text:
    """Prompt and text; with probabilities, each token coloured from red (a guess) to green (sure)."""
    if not sample.probabilities:
        return Text.assemble((sample.prompt, "bold"), sample.text)
    colours = ((0.1, "red"), (0.3, "yellow"), (0.7, "default"), (1.1, "green"))
    pieces = [
        (token.text, next(colour for limit, colour in colours if token.probability < limit))
        for token in sample.probabilities
    ]
    return Text.assemble((sample.prompt, "bold"), *pieces)
