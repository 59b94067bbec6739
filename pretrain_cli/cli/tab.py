"""Answers a Tab from the standard library and a table of the commands alone: typer and pydantic take too long to load.

What the table can't tell is left to typer, which speaks with the shells in the same way.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.completion_values import RUNS, Line, Values, completions

VARIABLE = "_PTK_COMPLETE"
"""Set by a shell that asks for completions."""
TABLE = Path(__file__).with_name("completion.json")
"""Commands, options and config keys, written by docs/completion.py from the command line itself."""
BREAKS = "=@:"
"""Bash takes each of these as a word of its own."""

Found = list[tuple[str, str]]
"""Completions, each with its help."""


class Unsure(Exception):
    """The table doesn't tell what a command line means."""


def answer(environ: MutableMapping[str, str]) -> tuple[str, int] | None:
    """What to print for the shell that asks in ``environ``, and the exit status; None where only typer can tell."""
    shell = environ[VARIABLE].partition("complete_")[2]
    if shell not in SHELLS:
        return None
    variables = dict(environ)
    kept = join_bash_words(variables) if shell == "bash" else ""
    try:
        table = json.loads(TABLE.read_text(encoding="utf-8"))
        words, incomplete = _words_of(shell, variables)
        return SHELLS[shell](_complete(table, words, incomplete), kept, variables)
    except (Unsure, OSError, ValueError, LookupError, TypeError):
        return None


def join_bash_words(environ: MutableMapping[str, str]) -> str:
    """Put words together that bash has taken apart, in COMP_WORDS and COMP_CWORD.

    Returns:
        the part of the last word that bash keeps: completions come without it. It ends with the "=" or ":", but before
        an "@", which readline completes together with what follows.
    """
    words, at = environ.get("COMP_WORDS", "").split("\n"), int(environ.get("COMP_CWORD") or 0)
    joined: list[str] = []
    kept = ""
    for index, word in enumerate(words[: at + 1]):
        before = joined[-1] if joined else ""
        is_break = word != "" and word in BREAKS
        after_break = word != "" and words[index - 1] != "" and words[index - 1] in BREAKS
        if index > 1 and (is_break or after_break):
            joined[-1] += word
            kept = (joined[-1] if is_break else before).removesuffix("@")
        else:
            joined.append(word)
            kept = ""
    environ["COMP_WORDS"], environ["COMP_CWORD"] = "\n".join([*joined, *words[at + 1 :]]), str(len(joined) - 1)
    return kept


@dataclass
class _Typed:
    """What stands before the word that is completed.

    Attributes:
        given: options, by their first name.
        values: (what completes it, value) of each option with a value, and of each argument.
        arguments: how many stand there.
        waiting: the option whose value comes next.
    """

    given: set[str] = field(default_factory=set)
    values: list[tuple[str, Values, str]] = field(default_factory=list)
    arguments: int = 0
    waiting: dict[str, Any] | None = None
    only_arguments: bool = False


def _complete(table: dict[str, Any], words: list[str], incomplete: str) -> Found:
    """The completions of ``incomplete`` after ``words``, which come after "ptk"."""
    command, rest, name = table["root"], words, ""
    while rest and "commands" in command:
        name, *rest = rest
        if name not in command["commands"]:
            raise Unsure
        command = command["commands"][name]
    if incomplete.startswith("-") and "=" in incomplete:
        option, _, incomplete = incomplete.partition("=")
        rest = [*rest, option]
    elif incomplete == "=":
        incomplete = ""
    typed = _read(command, rest)
    if incomplete.startswith("-") and not typed.only_arguments:
        return _option_names(command, typed.given, incomplete)
    if "commands" in command:
        return [(each, value["help"]) for each, value in command["commands"].items() if each.startswith(incomplete)]
    place = typed.waiting or _argument(command, typed.arguments)
    if place is None:
        return []
    named = [value for _, kind, value in typed.values if kind == RUNS]
    folder = next((value for option, _, value in reversed(typed.values) if option == "--artifacts"), "")
    folder = folder or os.environ.get("PTK_ARTIFACTS") or "artifacts"
    line = Line(name, Artifacts(Path(folder)), next(iter(named), None), table["keys"])
    return [(word, "") for word in completions(place.get("values", ""), line, incomplete)]


def _read(command: dict[str, Any], words: list[str]) -> _Typed:
    """What the words after a command say."""
    typed = _Typed()
    by_name = {name: option for option in command["options"] for name in option["names"]}
    for word in words:
        if typed.waiting is not None:
            typed.values.append((typed.waiting["names"][0], typed.waiting.get("values", ""), word))
            typed.waiting = None
        elif word == "--" and not typed.only_arguments:
            typed.only_arguments = True
        elif word.startswith("-") and len(word) > 1 and not typed.only_arguments:
            name, equals, value = word.partition("=")
            if name not in by_name:
                raise Unsure
            option = by_name[name]
            typed.given.add(option["names"][0])
            if equals:
                typed.values.append((option["names"][0], option.get("values", ""), value))
            elif "flag" not in option:
                typed.waiting = option
        else:
            if (argument := _argument(command, typed.arguments)) is None:
                raise Unsure
            typed.values.append(("", argument.get("values", ""), word))
            typed.arguments += 1
    return typed


def _argument(command: dict[str, Any], index: int) -> dict[str, Any] | None:
    """The argument of that index; the last may be repeatable."""
    arguments = command.get("arguments", [])
    if index < len(arguments):
        return dict(arguments[index])
    return dict(arguments[-1]) if arguments and "repeatable" in arguments[-1] else None


def _option_names(command: dict[str, Any], given: set[str], incomplete: str) -> Found:
    """The options that begin so, without those that are there already."""
    open_ = [entry for entry in command["options"] if "repeatable" in entry or entry["names"][0] not in given]
    return [(name, entry["help"]) for entry in open_ for name in entry["names"] if name.startswith(incomplete)]


def _words_of(shell: str, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """The complete words after "ptk", and the one that is completed."""
    if shell == "bash":
        at, words = int(environ["COMP_CWORD"]), _split(environ["COMP_WORDS"])
        return words[1:at], words[at] if at < len(words) else ""
    line = environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    if shell in ("powershell", "pwsh"):
        incomplete = environ.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
        return words[:-1] if incomplete else words, incomplete
    return (words[:-1], words[-1]) if words and not line.endswith(" ") else (words, "")


def _split(line: str) -> list[str]:
    """The words of a line as a shell splits them; a quote that is still open goes on to the end."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words.extend(iter(lexer))
    except ValueError:
        words.append(lexer.token)
    return words


def _for_bash(found: Found, kept: str, _environ: Mapping[str, str]) -> tuple[str, int]:
    return "".join(f"{word.removeprefix(kept)}\n" for word, _ in found), 0


def _for_zsh(found: Found, _kept: str, _environ: Mapping[str, str]) -> tuple[str, int]:
    if not found:
        return "_files\n", 0
    lines = [f'"{_escaped(word)}"' + (f':"{_escaped(told)}"' if told else "") for word, told in found]
    return "_arguments '*: :((" + "\n".join(lines) + "))'\n", 0


def _escaped(text: str) -> str:
    """Text inside of zsh's quotes, where it evaluates what it is told."""
    text = text.replace('"', '""').replace("'", "''")
    return re.sub(r"([$`])", r"\\\1", text).replace(":", r"\\:")


def _for_fish(found: Found, _kept: str, environ: Mapping[str, str]) -> tuple[str, int]:
    if environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return "", 0 if found else 1
    return "".join(f"{word}\t{told}\n" if told else f"{word}\n" for word, told in found), 0


def _for_powershell(found: Found, _kept: str, _environ: Mapping[str, str]) -> tuple[str, int]:
    return "".join(f"{word}:::{told or ' '}\n" for word, told in found), 0


SHELLS = {
    "bash": _for_bash,
    "zsh": _for_zsh,
    "fish": _for_fish,
    "powershell": _for_powershell,
    "pwsh": _for_powershell,
}
"""Shell → how it is told."""
