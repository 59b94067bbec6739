"""`ptk generate`: text from a trained model, streamed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pretrain_cli.cli.console import Console, to_plain
from pretrain_cli.cli.interactive import converse
from pretrain_cli.cli.options import Flag, Session, command
from pretrain_cli.errors import UsageError

SIDE_BY_SIDE_WIDTH = 80
"""Columns of a terminal from which on two texts stand beside each other."""


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
        list[str] | None, typer.Argument(metavar="PROMPT", help="Text to go on from; - reads standard input.")
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
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Go on turn by turn with what you type; in a pipe, line by line."),
    ] = False,
) -> None:
    """Write text that goes on from a prompt, with the newest run."""
    if interactive:
        _check_interactive(session, checkpoint, against, prompts_file)
        _voices(session, model, checkpoint, None)
        converse(session, prompts or [], model, checkpoint)
        return
    texts = _read_prompts(prompts or [], prompts_file)
    voices = _voices(session, model, checkpoint, against)
    settings = session.config.generate
    alone = len(texts) * settings.samples * len(voices) == 1 and not settings.probabilities
    stream = _Stream(session.console, texts[0]) if alone and session.console.speaks else None

    from pretrain_cli.generation.run import generate as run_generate

    results = []
    with stream or contextlib.nullcontext():
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
                        on_text=stream.show if stream else None,
                    )
                )
    if stream is None:
        _show(session, voices, results)
    session.console.next("ptk evaluate", 'ptk generate "..." --samples 3')


class _Stream:
    """The prompt and, piece by piece, its text; whatever happens, the line that was begun is ended."""

    def __init__(self, console: Console, prompt: str) -> None:
        self.console, self.prompt, self.begun = console, prompt, False

    def __enter__(self) -> None:
        pass

    def show(self, _: int, piece: str) -> None:
        if not self.begun:
            self.begun = True
            self.console.text(self.prompt, end="")
        self.console.text(piece, end="")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.show(0, "\n")
        elif self.begun and not issubclass(kind, BrokenPipeError):
            self.console.text("")


def _check_interactive(session: Session, checkpoint: str | None, against: str | None, file: Path | None) -> None:
    for option, given in (
        ("--against", against is not None),
        ("--checkpoint all", checkpoint == "all"),
        ("--prompts-file", file is not None),
        ("--samples", session.config.generate.samples > 1),
    ):
        if given:
            raise UsageError(f"--interactive doesn't go with {option}.", "Leave one of them out.")


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


def _show(session: Session, voices: list[tuple[str | None, str | None]], results: list[Any]) -> None:
    titles = ["@".join(part for part in (name or "latest", step) if part) for name, step in voices]
    if session.console.json:
        plain = [to_plain(result)["samples"] for result in results]
        models = [{"model": title, "samples": own} for title, own in zip(titles, plain, strict=True)]
        every = [sample for own in plain for sample in own]
        session.console.print_json({"samples": every, **({"models": models} if len(models) > 1 else {})})
    elif session.console.speaks:
        out = session.console.out
        if len(titles) == 2 and out.is_terminal and out.width >= SIDE_BY_SIDE_WIDTH:
            out.print(_side_by_side(titles, results), soft_wrap=False)
            return
        for title, result in zip(titles, results, strict=True):
            if len(titles) > 1:
                out.print(f"[bold]{escape(title)}[/]")
            for index, sample in enumerate(result.samples):
                if index:
                    out.print("[dim]----[/]")
                out.print(_text_of(sample))
            session.console.text("")


def _side_by_side(titles: list[str], results: list[Any]) -> Table:
    """A column a model, a row a sample."""
    table = Table(box=box.SIMPLE, expand=True, show_lines=True)
    for title in titles:
        table.add_column(escape(title), ratio=1, overflow="fold")
    for pair in zip(*(result.samples for result in results), strict=True):
        table.add_row(*map(_text_of, pair))
    return table


def _read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """The prompts as typed and those of the file, with "-" replaced by what standard input holds."""
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} isn't UTF-8: byte {error.start}.", "Save it as UTF-8.") from error
        prompts = [*prompts, *(line for line in lines if line.strip())]
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
