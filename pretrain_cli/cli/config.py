"""Implements `ptk config`: shows, explains and writes settings."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from pretrain_cli.cli.fields import config_field, default_text, markup, metavar
from pretrain_cli.cli.help import add_command, group
from pretrain_cli.cli.options import command
from pretrain_cli.cli.session import Session
from pretrain_cli.config.load import DEFAULT_FILE, flatten, known_keys
from pretrain_cli.errors import ConfigError, UsageError
from pretrain_cli.storage import write_text

app = group(
    "Show, explain and write the config.",
    examples=("ptk config keys train.learning_rate", "ptk config show --changed", "ptk config init"),
)


@command(
    examples=(
        "ptk config show",
        "ptk config show --changed --preset tinysolar",
        "PTK_TRAIN__SEED=1 ptk config show --set train.keep=5 --json",
    )
)
def show(
    session: Session,
    changed: Annotated[bool, typer.Option("--changed", help="Show only values that are set.")] = False,
) -> None:
    """Show all values and where each came from."""
    origins = session.resolved.origins
    values = {key: value for key, value in flatten(session.config) if not changed or origins[key] != "default"}
    if session.console.json:
        session.console.print_json({key: {"value": value, "origin": origins[key]} for key, value in values.items()})
    elif session.console.speaks:
        for key, value in values.items():
            style = "dim" if origins[key] == "default" else "bold"
            line = f"{key} = {_literal(value)}" if value is not None else f"# {key} is not set"
            session.console.out.print(f"[{style}]{markup(line)}[/]  [dim]# {markup(origins[key])}[/]")
    session.console.next("ptk config keys KEY", "ptk config init")


@command(
    examples=("ptk config init", "ptk config init mine.toml --preset continue", "ptk train --config mine.toml"),
)
def init(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")] = Path(DEFAULT_FILE),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a config file that explains all keys; the defaults are commented out."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Name a file, such as {path / DEFAULT_FILE}.")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists.", "Choose another name, or replace the file with --force.")
    write_text(path, template(session))
    session.console.result(f"Wrote {path}", [], {"path": path})
    session.console.next("ptk config show")


@command(examples=("ptk config keys", "ptk config keys train", "ptk config keys train.learning_rate"))
def keys(
    session: Session, key: Annotated[str | None, typer.Argument(metavar="KEY", help="A key or a section.")] = None
) -> None:
    """List all keys, or explain a key or a section."""
    wanted = [name for name in known_keys() if key in (None, name) or name.startswith(f"{key}.")]
    if not wanted:
        nearest = difflib.get_close_matches(key or "", known_keys(), n=1, cutoff=0.5)
        raise ConfigError(
            f"Unknown key '{key}'.", f"Did you mean '{nearest[0]}'?" if nearest else "List all: ptk config keys"
        )
    if session.console.json:
        session.console.print_json({name: _describe(name) for name in wanted})
        return
    for name in wanted:
        facts = _describe(name)
        if session.console.speaks:
            session.console.out.print(
                f"[bold]{name}[/] [dim]{markup(facts['type'])}, default {markup(facts['default'])}[/]"
            )
            session.console.out.print(f"  {markup(facts['help'])}")
    session.console.next("ptk train --set key=value", "ptk config init")


for _command in (show, init, keys):
    add_command(app, _command.__name__, _command)


def template(session: Session) -> str:
    """A TOML file that sets what the session's layers chose; all other keys are comments."""
    lines = ["# Every ptk command in this folder reads ptk.toml. Lines that start with # are defaults or explanations."]
    section = ""
    for key, value in flatten(session.config):
        table, _, name = key.partition(".")
        if table != section:
            section = table
            lines += ["", f"[{table}]"]
        if not name:  # [trainer], whose keys are those of transformers
            lines += [f"# {config_field(key).description}"]
            lines += [f"{own} = {_literal(item)}" for own, item in value.items()]
            continue
        mark = "" if session.chose(key) else "# "
        shown = "" if value is None else f" {_literal(value)}"
        lines += [f"# {config_field(key).description}", f"{mark}{name} ={shown}"]
    return "\n".join(lines) + "\n"


def _describe(key: str) -> dict[str, str]:
    field = config_field(key)
    return {"type": metavar(field), "default": default_text(field), "help": field.description or ""}


def _literal(value: object) -> str:
    """A value as TOML writes it."""
    import tomli_w

    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        items = (item.model_dump() if isinstance(item, BaseModel) else item for item in value)
        return f"[{', '.join(map(_literal, items))}]"
    return tomli_w.dumps({"value": value}).partition("=")[2].strip()
