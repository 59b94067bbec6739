"""Makes the page about the Python functions from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pretrain_cli
from pretrain_cli.progress import Progress
from pretrain_cli.python.results import Evaluated, Generated, Prepared, Trained

FUNCTIONS = ("prepare", "train", "evaluate", "generate", "export", "all_runs", "load_config")
RESULTS = (Prepared, Trained, Evaluated, Generated)
SECTIONS = ("Args", "Raises", "Returns", "Attributes")


def page(note: str) -> str:
    """The page; ``note`` says who wrote it."""
    lines = [
        "# Python",
        "",
        note,
        "",
        "`from pretrain_cli import prepare, train, evaluate, generate, export`: the commands as functions. Config keys",
        "are keyword arguments: `seed=1` sets the key `seed` of the function's own sections, `train__seed=1` the key",
        "`train.seed`. [All keys](configuration.md). The [guide](../guides/python.md) has examples.",
    ]
    for name in FUNCTIONS:
        lines += ["", f"## {name}", "", *_callable(getattr(pretrain_cli, name), name)]
    lines += ["", "## Results", "", "In a notebook each shows itself. Each has the fields that its command prints with"]
    lines += ["`--json`: see [JSON objects](json.md)."]
    for kind in RESULTS:
        lines += ["", f"### {kind.__name__}", "", *_docstring(kind), *_members(kind)]
    lines += ["", "## Progress", "", *_docstring(Progress), *_members(Progress)]
    lines += ["", "## PtkError", "", *_docstring(pretrain_cli.PtkError)]
    return "\n".join(lines).rstrip() + "\n"


def _callable(function: Any, name: str) -> list[str]:
    return ["```python", _signature(function, name), "```", "", *_docstring(function)]


def _signature(function: Any, name: str) -> str:
    """As it is written, without the keys that it takes as keywords."""
    code = inspect.unwrap(function).__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2]
    own = inspect.signature(function)
    told = list(_written([each for each in own.parameters.values() if each.name in names]))
    line = f"{name}({', '.join(told)}) -> {own.return_annotation}"
    broken = "".join(f"    {each},\n" for each in told)
    return line if len(line) <= 100 else f"{name}(\n{broken}) -> {own.return_annotation}"


def _written(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Each as in the source, with the star before those that need their names."""
    starred = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    for each in parameters:
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(each.kind, "")
        default = "" if each.default is each.empty else f" = {each.default!r}"
        yield f"{stars}{each.name}: {each.annotation}{default}"


def _docstring(thing: Any) -> list[str]:
    """The docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").replace("``", "`").splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            lines += [f"{line}", ""]
        elif entry := re.match(r"    ([\w, *]+): (.*)", line):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append("  " + line.strip() if line.startswith("     ") else line.rstrip())
    return lines


def _members(kind: type) -> list[str]:
    """The public methods and properties that the class itself defines."""
    lines = []
    for name, member in vars(kind).items():
        called = inspect.isfunction(member)
        if name.startswith("_") or not (called or isinstance(member, property)):
            continue
        told = " ".join((inspect.getdoc(member) or "").replace("``", "`").split())
        shown = f"{name}({_arguments(member)})" if called else name
        lines.append(f"- `{shown}`: {told}")
    return ["", *lines] if lines else []


def _arguments(function: Any) -> str:
    return ", ".join(_written(list(inspect.signature(function).parameters.values())[1:]))
