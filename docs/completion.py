"""Makes the table that answers a Tab, pretrain_cli/cli/completion.json, from the command line itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from rich.text import Text

from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.completing import values_by_key, values_of_parameters

LONGEST_LINE = 6
"""Fields of an object that stand on one line."""


def table() -> str:
    """The table as JSON, each option on a line of its own."""
    return "\n".join(_lines({"root": _command(typer.main.get_command(make_app())), "keys": values_by_key()})) + "\n"


def _command(command: Any, parent: typer.Context | None = None) -> dict[str, Any]:
    """A command's help, options, arguments and commands."""
    context = typer.Context(command, parent=parent, info_name=command.name, **command.context_settings)
    values = values_of_parameters(command.callback) if command.callback else {}
    parameters = [(entry, values.get(entry.name, "")) for entry in command.get_params(context)]
    made = {
        "help": plain(command.get_short_help_str()),
        "options": [_option(entry, found) for entry, found in parameters if entry.param_type_name == "option"],
        "arguments": [_argument(entry, found) for entry, found in parameters if entry.param_type_name == "argument"],
    }
    children = getattr(command, "commands", {})
    return made | (
        {"commands": {name: _command(child, context) for name, child in children.items()}} if children else {}
    )


def _option(parameter: Any, values: Any) -> dict[str, Any]:
    names = [*parameter.opts, *parameter.secondary_opts]
    return {
        "names": sorted(names) if "--help" in names else names,  # typer has those in a set
        "help": plain(parameter.help or ""),
        **({"values": values} if values else {}),
        **({"flag": True} if parameter.is_flag or parameter.count else {}),
        **({"repeatable": True} if parameter.multiple else {}),
    }


def _argument(parameter: Any, values: Any) -> dict[str, Any]:
    return {**({"values": values} if values else {}), **({"repeatable": True} if parameter.nargs == -1 else {})}


def plain(text: str) -> str:
    """Help text without rich's markup, on one line."""
    return " ".join(Text.from_markup(text).plain.split())


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """JSON of nested objects, the small ones on one line each."""
    if isinstance(value, dict) and (_holds_objects(value.values()) or len(value) > LONGEST_LINE):
        yield from _block([(f"{json.dumps(key)}: ", item) for key, item in value.items()], "{}", indent)
    elif isinstance(value, list) and _holds_objects(value):
        yield from _block([("", item) for item in value], "[]", indent)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _holds_objects(items: Iterable[Any]) -> bool:
    return any(isinstance(item, dict) or (isinstance(item, list) and _holds_objects(item)) for item in items)


def _block(entries: list[tuple[str, Any]], brackets: str, indent: str) -> Iterator[str]:
    yield brackets[0]
    for number, (key, item) in enumerate(entries):
        lines = list(_lines(item, indent + " "))
        lines[-1] += "," if number + 1 < len(entries) else ""
        yield f"{indent} {key}{lines[0]}"
        yield from lines[1:]
    yield f"{indent}{brackets[1]}"
