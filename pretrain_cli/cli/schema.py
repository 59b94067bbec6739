"""Implements `ptk schema`: prints the JSON Schema of what a command prints with --json."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.errors import UsageError
from pretrain_cli.quiet import quiet_import


@command(examples=("ptk schema", "ptk schema train", "ptk schema runs list", "ptk schema error"))
def schema(
    session: Session,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="A command, or error. Default: all of them.")
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with [bold]--json[/], or of errors.

    Every such object has the fields schema, version and warnings; an error has the field error.
    """
    from pretrain_cli.cli.schemas import RESULTS, command_schema, error_schema

    name = " ".join(words or ())
    if name not in ("", "error", *RESULTS):
        raise UsageError(f"'{name}' prints no JSON object.", f"Commands that do: {', '.join(RESULTS)}.")
    with quiet_import():
        if name == "error":
            whole: Any = error_schema()
        else:
            whole = command_schema(name) if name else {command: command_schema(command) for command in RESULTS}
    print(json.dumps(whole, indent=2, ensure_ascii=False))
