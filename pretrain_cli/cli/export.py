"""Implements `ptk export`: writes a run's model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretrain_cli.cli.console import shell
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.formatting import byte_size

if TYPE_CHECKING:
    from pretrain_cli.exporting.run import ExportResult


@command(
    examples=("ptk export", "ptk export first --to gguf --quantization q8_0", "ptk export --to ollama -o ./mine"),
)
def export(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run. Default: the latest.")] = None,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="hf, gguf or ollama.")] = "hf",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")] = None,
    quantization: Annotated[
        str, typer.Option("--quantization", metavar="TYPE", help="f16 or q8_0; for gguf and ollama.")
    ] = "f16",
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="STEP", help="A checkpoint of the run, such as step-000100.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            metavar="OWNER/NAME",
            help="Upload the export to this Hub repository; a new repository is private.",
        ),
    ] = None,
) -> None:
    """Write a run's model as a folder for transformers, as a GGUF file, or for Ollama."""
    from pretrain_cli.exporting.run import export as run_export

    with session.progress() as progress:
        result = run_export(
            session.artifacts,
            progress,
            to=to,
            run=run,
            checkpoint=checkpoint,
            output=output,
            quantization=quantization,
            push_to_hub=push_to_hub,
        )
    facts = [("in", str(result.path)), ("size", byte_size(result.bytes))]
    if result.checked:
        facts.append(("checked", result.checked))
    if result.address:
        facts.append(("uploaded to", result.address))
    session.console.result(f"Exported as {result.format}", facts, result)
    session.console.next(*_next(result))


def _next(result: ExportResult) -> tuple[str, ...]:
    """The commands that use what was written, and those that serve it."""
    if result.format == "ollama":
        return tuple(result.serve)
    place = result.path if result.format == "hf" else result.files[0]
    return (f'ptk generate "..." --model {shell(str(place))}', *result.serve)
