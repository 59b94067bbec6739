"""Implements `ptk blend`: makes one model of the weights of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretrain_cli.cli.console import shell
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import UsageError
from pretrain_cli.formatting import byte_size, count_of


@command(
    examples=(
        "ptk blend base first --weight 0.6",
        "ptk blend first --add-difference ./instruct ./base",
        "ptk blend base first --weight 0.5 -o ./mine --json",
    ),
)
def blend(
    session: Session,
    models: Annotated[list[str], typer.Argument(metavar="A [B]", help="Runs, folders, Hub ids, or base.")],
    weight: Annotated[
        float | None,
        typer.Option(
            "--weight",
            metavar="W",
            help="Weight of B: 0 is A, 1 is B. With --add-difference, of the difference. Default: 0.5, or 1.",
        ),
    ] = None,
    add_difference: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--add-difference",
            metavar="INSTRUCT BASE",
            help="Add to A what INSTRUCT was taught after BASE: A + W * (INSTRUCT - BASE).",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")] = None,
) -> None:
    """Make one model of the weights of several, without training.

    A point between a base and a run keeps more of the base. The difference between an instruct model and its base,
    added to a run that continued the base, gives the run what the instruct model was taught.
    """
    if len(models) > 2:
        raise UsageError("ptk blend takes one or two models.", "Blend the result with the next one.")
    from pretrain_cli.exporting.blend import blend as run_blend

    with session.progress() as progress:
        result = run_blend(
            session.artifacts,
            progress,
            first=models[0],
            second=models[1] if len(models) > 1 else None,
            weight=weight,
            difference=add_difference,
            output=output,
        )
    facts = [(f"{part.weight:+g}", part.name) for part in result.parts]
    facts += [
        ("in", str(result.model)),
        ("size", f"{count_of(result.parameters, 'weight')}, {byte_size(result.bytes)}"),
    ]
    session.console.result("Blended", facts, result)
    place = shell(str(result.model))
    session.console.next(f"ptk evaluate {place}", f'ptk generate "..." --model {place}')
