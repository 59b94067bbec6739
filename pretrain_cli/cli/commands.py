"""Lists the commands and builds the command line from their modules."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import typer

from pretrain_cli.cli.help import PlainGroup, add_command
from pretrain_cli.version import __version__

PIPELINE, START, MORE = "Pipeline", "Getting started", "More"

COMMANDS: dict[str, str] = {
    "prepare": PIPELINE,
    "train": PIPELINE,
    "evaluate": PIPELINE,
    "generate": PIPELINE,
    "demo": START,
    "doctor": START,
    "plan": MORE,
    "inspect": MORE,
    "config": MORE,
    "runs": MORE,
    "export": MORE,
    "blend": MORE,
    "schema": MORE,
}
"""Command → its panel in the help. The module of that name has a function of that name, or a group ``app``."""


def make_app() -> typer.Typer:
    """The command line, with every command's help but none of the heavy libraries."""
    app = typer.Typer(
        name="ptk",
        cls=PlainGroup,
        help="Train a language model on your own text: prepare, train, evaluate, generate.",
        epilog="Start with [bold]ptk demo[/], or with your own text: [bold]ptk prepare data.txt[/]",
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, panel in COMMANDS.items():
        module = _module(name)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, rich_help_panel=panel)
        else:
            add_command(app, name, getattr(module, name), panel)
    return app


def command_of(words: Sequence[str]) -> str:
    """The command that ``words`` name, such as "train" or "config show"; empty where they name none."""
    place = next((index for index, word in enumerate(words) if word in COMMANDS), len(words))
    if place == len(words):
        return ""
    group: Any = getattr(_module(words[place]), "app", None)
    children = [child.name for child in group.registered_commands] if group else []
    return " ".join([words[place], *(word for word in words[place + 1 : place + 2] if word in children)])


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"pretrain_cli.cli.{name}")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ptk {__version__}")
        raise typer.Exit()


def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    pass
