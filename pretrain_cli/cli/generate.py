"""Implements `ptk generate`: continues prompts with a trained model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pretrain_cli.cli.console import Console, to_plain
from pretrain_cli.cli.fields import Flag
from pretrain_cli.cli.interactive import converse
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.cli.visible import shown, visible
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import exact
from pretrain_cli.storage import read_bounded

if TYPE_CHECKING:
    from pretrain_cli.generation.results import GeneratedText, GenerateResult

COLORS = (
    (0.1, "red", "below 10%"),
    (0.3, "yellow", "below 30%"),
    (0.7, "default", "below 70%"),
    (1.1, "green", "above"),
)
"""(limit, color, words): tokens less probable than the limit have this color."""
MOST_PROMPT_BYTES = 100_000_000
SIDE_BY_SIDE_WIDTH = 80
"""Terminal columns from which two texts are shown side by side."""


@command(
    "generate.max_tokens",
    "generate.temperature",
    "generate.top_p",
    "generate.top_k",
    "generate.min_p",
    "generate.repetition_penalty",
    "generate.greedy",
    "generate.seed",
    "generate.chat",
    "generate.suffix",
    Flag("generate.samples", short="-n"),
    "generate.stop",
    "generate.probabilities",
    "generate.engine",
    "generate.device",
    "generate.precision",
    examples=(
        'ptk generate "Once upon a time"',
        'ptk generate "Once upon a time" --samples 3 --temperature 1.0',
        'ptk generate "Call me" --against base',
        'ptk generate "What is the sea?" --chat --against base',
        'ptk generate "def area(r):" --suffix "return area"',
        "echo 'Dear reader' | ptk generate - --greedy",
    ),
)
def generate(
    session: Session,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="Text to continue; - reads standard input.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "--run", metavar="RUN", help="A run, a folder, a Hub id or base. Default: the latest run."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="STEP", help="A checkpoint of the run, such as step-000100, or all."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="MODEL", help="Also show the text of another model: base, or a run."),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts-file", metavar="FILE", help="A file with one prompt per line.")
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Continue what you type, turn by turn; in a pipe, line by line."),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Write control characters to a terminal as they are, not as symbols; files and pipes get them anyway.",
        ),
    ] = False,
) -> None:
    """Continue a prompt with a trained model."""
    session = replace(session, console=replace(session.console, raw=raw))
    if interactive:
        _check_interactive(session, checkpoint, against, prompts_file)
        _voices(session, model, checkpoint, None)
        converse(session, prompts or [], model, checkpoint)
        return
    texts = _read_prompts(prompts or [], prompts_file)
    voices = _voices(session, model, checkpoint, against)
    settings = session.config.generate
    alone = len(texts) * settings.samples * len(voices) == 1 and not settings.probabilities
    opening = "" if settings.chat else texts[0]
    stream = _Stream(session.console, opening, settings.suffix) if alone and session.console.speaks else None

    from pretrain_cli.generation.run import generate as run_generate

    side_by_side = _fits_side_by_side(session, voices)
    results = []
    with stream or contextlib.nullcontext():
        for name, step in voices:
            with session.progress() as progress:
                result = run_generate(
                    session.config,
                    session.artifacts,
                    progress,
                    prompts=texts,
                    model=name,
                    checkpoint=step,
                    on_text=stream.show if stream else None,
                )
            if settings.chat and not session.console.json:  # an answer begins a line of its own
                result = replace(result, samples=[replace(each, prompt=f"{each.prompt}\n") for each in result.samples])
            results.append(result)
            if session.console.speaks and not stream and not side_by_side:
                _show_one(session, _title(session, name, step) if len(voices) > 1 else "", result)
    if session.console.json:
        _print_json(session, voices, results)
    elif side_by_side and session.console.speaks:
        session.console.texts.print(
            _side_by_side([_title(session, *voice) for voice in voices], results, session.console.model_text),
            soft_wrap=False,
        )
    if settings.probabilities and session.console.speaks:
        _explain_colors(session)
    session.console.next("ptk evaluate", 'ptk generate "..." --samples 3')


class _Stream:
    """Prints the prompt and, piece by piece, its text, then the suffix. Always ends the line that it started."""

    def __init__(self, console: Console, prompt: str, suffix: str) -> None:
        self.console, self.prompt, self.suffix, self.begun = console, prompt, suffix, False

    def __enter__(self) -> None:
        pass

    def show(self, _: int, piece: str) -> None:
        if not self.begun:
            self.begun = True
            self.console.written(self.prompt, end="")
        self.console.written(piece, end="")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.show(0, f"{self.suffix}\n")
        elif self.begun and not issubclass(kind, BrokenPipeError):
            self.console.text("")


def _check_interactive(session: Session, checkpoint: str | None, against: str | None, file: Path | None) -> None:
    for option, given in (
        ("--against", against is not None),
        ("--checkpoint all", checkpoint == "all"),
        ("--prompts-file", file is not None),
        ("--samples", session.config.generate.samples > 1),
        ("--suffix", bool(session.config.generate.suffix)),
    ):
        if given:
            raise UsageError(f"--interactive and {option} don't work together.", "Use only one of them.")


def _voices(
    session: Session, model: str | None, checkpoint: str | None, against: str | None
) -> list[tuple[str | None, str | None]]:
    """(model, checkpoint) of each text to write. Looked up first, so that a wrong name is reported at once."""
    from pretrain_cli.model.names import checkpoints_of, find_model

    voices = [(model, checkpoint)]
    if checkpoint == "all":
        run = session.artifacts.existing_run(model)
        voices = [(run.name, step) for step in checkpoints_of(run)]
        if not voices:
            raise UsageError(
                f"Run '{run.name}' has no checkpoints.", "Leave out --checkpoint to use the finished model."
            )
    if against is not None:
        voices.append((against, None))
    for name, step in voices:
        find_model(name, session.artifacts, step)
    return voices


def _title(session: Session, name: str | None, step: str | None) -> str:
    """What a model's column is headed: the run's name, also where the latest was meant."""
    return "@".join(part for part in (name or session.artifacts.latest_run().name, step) if part)


def _fits_side_by_side(session: Session, voices: list[tuple[str | None, str | None]]) -> bool:
    out = session.console.out
    return len(voices) == 2 and out.is_terminal and out.width >= SIDE_BY_SIDE_WIDTH


def _print_json(session: Session, voices: list[tuple[str | None, str | None]], results: list[GenerateResult]) -> None:
    plain = [to_plain(result) for result in results]
    models = [
        {"model": _title(session, *voice), "samples": own["samples"]} for voice, own in zip(voices, plain, strict=True)
    ]
    value = {name: [item for own in plain for item in own[name]] for name in ("samples", "warnings")}
    session.console.print_json({**value, **({"models": models} if len(models) > 1 else {})})


def _show_one(session: Session, title: str, result: GenerateResult) -> None:
    """Print one model's texts, one below the other."""
    out = session.console.texts
    if title:
        session.console.out.print(f"[bold]{escape(title)}[/]")
    for index, sample in enumerate(result.samples):
        if index:
            out.print("[dim]----[/]")
        if out.is_terminal or not session.console.verbatim:
            out.print(_text_of(sample, session.console.model_text))
        else:  # rich would leave out a few control characters
            session.console.written(sample.prompt + sample.text + sample.suffix)
    if title:
        session.console.text("")


def _explain_colors(session: Session) -> None:
    if session.console.out.is_terminal and not session.console.out.no_color:
        limits = ", ".join(f"[{color}]{words}[/]" for _, color, words in COLORS)
        session.console.err.print(
            f"[dim]Probability of each token:[/] {limits}. For numbers, use --json", soft_wrap=True
        )
    else:
        session.console.err.print(
            "Probabilities are shown as colors in a terminal, and as numbers with --json.", soft_wrap=True
        )


def _side_by_side(titles: list[str], results: list[GenerateResult], safe: Callable[[str], str] = visible) -> Table:
    """A table with one column per model and one row per sample."""
    table = Table(box=box.SIMPLE, expand=True, show_lines=True)
    for title in titles:
        table.add_column(escape(shown(title)), ratio=1, overflow="fold")
    for pair in zip(*(result.samples for result in results), strict=True):
        table.add_row(*(_text_of(sample, safe) for sample in pair))
    return table


def _read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """The prompts as typed and those of the file; "-" is replaced by standard input."""
    if file is not None:
        try:
            # splitlines would cut prompts at U+2028 and others.
            lines = read_bounded(file, MOST_PROMPT_BYTES).split("\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} isn't UTF-8 (at byte {exact(error.start)}).", "Save it as UTF-8.") from error
        prompts = [*prompts, *(line for line in lines if line.strip())]
    if not prompts:
        raise UsageError("There is no prompt.", 'Give one: ptk generate "Once upon a time", or - for standard input.')
    return [_read_stdin() if prompt == "-" else prompt for prompt in prompts]


def _read_stdin() -> str:
    text = sys.stdin.read(MOST_PROMPT_BYTES + 1)
    if len(text) > MOST_PROMPT_BYTES:
        raise UsageError(
            f"Standard input is longer than {exact(MOST_PROMPT_BYTES)} characters.", "Give a shorter prompt."
        )
    return text.rstrip("\n")


def _text_of(sample: GeneratedText, safe: Callable[[str], str] = visible) -> Text:
    """Prompt, text and suffix; with probabilities, each token is colored from red (a guess) to green (sure)."""
    if not sample.probabilities:
        return Text.assemble((safe(sample.prompt), "bold"), safe(sample.text), (safe(sample.suffix), "bold"))
    pieces = [
        (safe(token.text), next(color for limit, color, _ in COLORS if token.probability < limit))
        for token in sample.probabilities
    ]
    text = Text.assemble(*pieces)[
        : len(safe(sample.text))
    ]  # the tokens of a stop text reach beyond the end of the sample
    return Text.assemble((safe(sample.prompt), "bold"), text, (safe(sample.suffix), "bold"))
