"""Writes docs/reference, and the table of completions, from the code.

With --check it writes nothing, and fails if a page is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import completion
import python_api
import typer
from rich.text import Text

from pretrain_cli.cli.commands import make_app
from pretrain_cli.cli.fields import config_field, default_text, metavar
from pretrain_cli.cli.help import examples_of
from pretrain_cli.cli.schemas import ENVELOPE, RESULTS, command_schema, error_schema
from pretrain_cli.cli.tab import TABLE
from pretrain_cli.config.load import known_keys
from pretrain_cli.config.model import Config
from pretrain_cli.data.reading.binary import SIGNATURES
from pretrain_cli.data.reading.folders import REASONS
from pretrain_cli.data.reading.formats import COMPRESSIONS, FORMATS
from pretrain_cli.errors import EXIT_CODES

FOLDER = Path(__file__).parent / "reference"
LEDGER = Path(__file__).parent / "concepts" / "ledger.md"
SKILL = Path(__file__).parents[1] / "skills" / "ptk" / "SKILL.md"
AGENTS = Path(__file__).parents[1] / "AGENTS.md"
END = "<!-- The end of what docs/generate.py writes. -->"
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


def inputs() -> str:
    """What is read of each format, what is refused, and which files of a folder aren't read."""
    lines = [NOTE, "", "| ending | what is read | a bad record or file |", "| --- | --- | --- |"]
    for name, entry in FORMATS.items():
        endings = " ".join(f"`{ending}`" for ending in entry.endings) or f"`{name.replace('hub', 'hf://datasets/…')}`"
        lines.append(f"| {endings} | {escape(entry.takes)} | {escape(entry.refuses)} |")
    kinds = ", ".join(dict.fromkeys(kind for _, kind, _ in SIGNATURES))
    lines += [
        *("", f"All but the last also with {' '.join(f'`{ending}`' for ending in COMPRESSIONS)}. "),
        *("Never read as text, whatever the name:", f"{kinds}, and what is full of NUL or control bytes.", ""),
        *("| reason in the manifest | files of a folder that aren't read |", "| --- | --- |"),
        *(f"| `{reason}` | {told} |" for reason, told in REASONS.items()),
        *("", END),
    ]
    return "\n".join(lines)


def _with_inputs(page: str) -> str:
    """The page about the ledger with the tables of ``inputs`` between its two marks."""
    before, _, rest = page.partition(NOTE)
    return before + inputs() + rest.partition(END)[2]


def json_objects() -> str:
    """What each command prints with --json: its fields, and the records that they hold."""
    lines = [
        "# JSON objects",
        "",
        NOTE,
        "",
        "With `--json` a command prints one object on stdout; progress and errors in words go to stderr. For programs,",
        "`ptk schema COMMAND` prints the same as JSON Schema. Each object has these fields too, errors included:",
        "",
        *_fields({"properties": ENVELOPE}),
        "",
        "Where something fails, the object has the field `error` instead of those below:",
        "",
        *_fields(error_schema()["properties"]["error"]),
        "",
        "A number that isn't finite is null. New fields may come with any version. `schema` is another number where a",
        "field changes its name or meaning.",
    ]
    records: dict[str, Any] = {}
    for name in RESULTS:
        schema = command_schema(name)
        records |= schema.get("$defs", {})
        lines += ["", f"## `ptk {name} --json`"]
        for result in schema["anyOf"][:-1]:
            lines += ["", *_described(result), *_fields(result, ENVELOPE)]
    for name in sorted(records):
        lines += ["", f"### {name}", "", *_described(records[name]), *_fields(records[name])]
    return "\n".join(lines) + "\n"


def skill() -> str:
    """AGENTS.md as a skill, which an agent finds by its description; without links, which lead nowhere in a copy."""
    lines = [
        "---",
        "name: ptk",
        "description: >-",
        "  Trains language models on text with the command ptk (package pretrain-cli), from scratch or from a base.",
        "  It prepares, trains, evaluates, compares, generates and exports, each with JSON output.",
        "  Use it when a model has to learn a text.",
        "---",
        "",
        NOTE,
        "",
        "",
    ]
    return "\n".join(lines) + re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", _read(AGENTS))


def _described(schema: Any) -> list[str]:
    return [schema["description"], ""] if "description" in schema else []


def _fields(schema: Any, known: Any = ()) -> list[str]:
    """A table of an object's fields, without those that are ``known``."""
    if isinstance(entry := schema.get("additionalProperties"), dict):
        return [f"Each config key has a field with its name: {_kind(entry)}."]
    fields = {name: value for name, value in schema.get("properties", {}).items() if name not in known}
    rows = [(f"`{name}`", _kind(field), field.get("description", "")) for name, field in fields.items()]
    lines = ["| field | type | meaning |", "| --- | --- | --- |"]
    return lines + [f"| {name} | {kind} | {escape(meaning)} |" for name, kind, meaning in rows]


def _kind(schema: Any) -> str:
    """A type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(word for part in schema["anyOf"] for word in _kind(part).split(" or ")))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"array of {' and '.join(_kind(part) for part in schema['prefixItems'])}"
    kind, inner = schema.get("type", "any value"), schema.get("additionalProperties")
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(inner, dict):
        return f"object of {_kind(inner)}"
    return " or ".join(kind) if isinstance(kind, list) else kind


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
    pages = {FOLDER / "configuration.md": configuration(), FOLDER / "cli.md": commands()}
    pages[FOLDER / "json.md"] = json_objects()
    pages[FOLDER / "python.md"] = python_api.page(NOTE)
    pages[LEDGER] = _with_inputs(_read(LEDGER))
    pages[TABLE] = completion.table()
    pages[SKILL] = skill()
    old = [path for path, text in pages.items() if _read(path) != text]
    for path in old:
        name = path.relative_to(Path(__file__).parents[1])
        if check:
            print(f"{name} is out of date: run `make docs`.", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path], encoding="utf-8")
        print(f"wrote {name}")
    return 1 if check and old else 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
