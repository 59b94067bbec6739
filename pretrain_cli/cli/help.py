"""Shapes the help of commands: argument names without Python types, and examples at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Plain:
    """Help that shows an argument by its name and a switch by its flag, without their Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, to be shown and parsed."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.param_type_name == "argument" or parameter.is_flag:
                parameter.display_type_rich = _no_type
        return parameters


class PlainCommand(Plain, TyperCommand):
    """A command with plain help."""


class PlainGroup(Plain, TyperGroup):
    """A group of commands with plain help."""


def group(text: str, examples: tuple[str, ...]) -> typer.Typer:
    """An empty group of commands with its help and examples."""
    return typer.Typer(
        cls=PlainGroup, help=text, epilog=_epilog(examples), no_args_is_help=True, rich_markup_mode="rich"
    )


def add_command(app: typer.Typer, name: str, body: Callable[..., None], panel: str = "") -> None:
    """Add a function made by `pretrain_cli.cli.options.command` to ``app``."""
    settings: dict[str, Any] = {"rich_help_panel": panel} if panel else {}
    app.command(name, cls=PlainCommand, epilog=_epilog(examples_of(body)), **settings)(body)


def examples_of(body: Callable[..., Any] | None) -> tuple[str, ...]:
    """The example lines of a command's function."""
    examples: tuple[str, ...] = getattr(body, "examples", ())
    return examples


def _epilog(examples: tuple[str, ...]) -> str:
    return "\n".join(["[bold]Examples[/]", *(f"  $ {line}".replace("[", "\\[") for line in examples)])


def _no_type(ctx: object) -> None:
    return None
