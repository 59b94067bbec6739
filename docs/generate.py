"""Writes docs/reference from the code. With --check it writes nothing, and fails if a page is out of date."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.fields import config_field, default_text, metavar
from pretrain_cli.cli.help import examples_of
from pretrain_cli.config.load import known_keys
from pretrain_cli.config.model import Config
from pretrain_cli.errors import EXIT_CODES

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code: change it there, then run `make docs`. -->"


def configuration() -> str:
    """Every config key with its type, default and meaning: one table for each section."""
    lines = [
        "# Configuration",
        "",
        NOTE,
        "",
        "Layers, weakest first: defaults, a preset, `ptk.toml`, variables such as `PTK_TRAIN__LEARNING_RATE`,",
        "`--set train.learning_rate=…`, flags. `ptk config show` prints every value and where it came from.",
    ]
    section = ""
    for key in known_keys():
        table, _, name = key.partition(".")
        if table != section:
            section = table
            lines += ["", f"## `[{table}]`", ""]
            if name:
                lines += [str(Config.model_fields[table].annotation.__doc__), ""]  # type: ignore[union-attr]
            lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        field = config_field(key)
        cells = (f"`{key}`", f"`{metavar(field)}`", f"`{default_text(field)}`", field.description or "")
        lines.append("| " + " | ".join(escape(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its description, examples and options."""
    lines = ["# Commands", "", NOTE, "", "`ptk COMMAND --help` shows the same in the terminal."]
    root = typer.main.get_command(make_app())
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        for title, leaf in _leaves(name, command):
            lines += ["", f"## `ptk {title}`", "", plain(leaf.help or ""), ""]
            lines += ["```sh", *examples_of(leaf.callback), "```", ""]
            lines += ["| option | meaning |", "| --- | --- |"]
            own = [parameter for parameter in leaf.params if "--help" not in parameter.opts]
            lines += [f"| {escape(_names(parameter))} | {escape(_help(parameter))} |" for parameter in own]
    lines += ["", "## Exit codes", "", "| code | meaning |", "| --- | --- |"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(lines) + "\n"


def _leaves(name: str, command: Any) -> list[tuple[str, Any]]:
    if hasattr(command, "commands"):
        return [(f"{name} {child}", leaf) for child, leaf in command.commands.items()]
    return [(name, command)]


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    names = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
    return names if not parameter.metavar else f"{names} `{parameter.metavar}`"


def _help(parameter: Any) -> str:
    return plain(parameter.help or "")


def plain(text: str) -> str:
    """Help text without rich's markup."""
    return re.sub(r"[ \t]*\n[ \t]*", "\n", Text.from_markup(text).plain).strip()


def escape(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def main(check: bool) -> int:
    """Write the pages, or with ``check`` name those that are out of date. Returns the exit status."""
    pages = {"configuration.md": configuration(), "cli.md": commands()}
    old = [name for name, text in pages.items() if _read(FOLDER / name) != text]
    if check:
        for name in old:
            print(f"docs/reference/{name} is out of date: run `make docs`.", file=sys.stderr)
        return 1 if old else 0
    FOLDER.mkdir(exist_ok=True)
    for name in old:
        (FOLDER / name).write_text(pages[name], encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
