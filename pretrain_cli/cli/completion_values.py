"""Finds the words that an option or argument may have, from the standard library alone: a Tab waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pretrain_cli.artifacts import RUN_NAME, Artifacts
from pretrain_cli.errors import PtkError

RUNS, CHECKPOINTS, SETTINGS, KEYS = "runs", "checkpoints", "settings", "keys"
"""Kinds of values that depend on the folder or on the rest of the line."""
TAKES_CHECKPOINTS = ("evaluate", "generate", "train")
"""Commands that take RUN@step-000100 where they take a run."""
TAKES_BASE = ("evaluate", "generate")
"""Commands that take base, the latest run's."""

Values = str | Sequence[str]
"""What completes: one of the kinds above, or the words themselves."""


@dataclass(frozen=True)
class Line:
    """What a command line says so far, as far as values depend on it.

    Attributes:
        command: its last word that names a command, such as "train", or "show" of "runs show".
        artifacts: the folder that it names.
        run: the first run that it names.
        keys: config key → what completes its values.
    """

    command: str
    artifacts: Artifacts
    run: str | None
    keys: Mapping[str, Values]


def completions(values: Values, line: Line, incomplete: str) -> list[str]:
    """The words that begin with ``incomplete``; none where what they depend on can't be read."""
    try:
        return [word for word in _words(values, line, incomplete) if word.startswith(incomplete)]
    except (PtkError, OSError, ValueError):
        return []


def _words(values: Values, line: Line, incomplete: str) -> Iterator[str]:
    if not isinstance(values, str):
        yield from values
    elif values == RUNS:
        yield from _runs(line, incomplete)
    elif values == CHECKPOINTS:
        run = line.artifacts.existing_run(line.run)
        yield from (f"step-{step:06d}" for step in reversed(run.checkpoint_steps()))
        if line.command == "generate":
            yield "all"
    elif values == SETTINGS:
        yield from _settings(line, incomplete)
    elif values == KEYS:
        yield from dict.fromkeys(key.partition(".")[0] for key in line.keys)
        yield from line.keys


def _runs(line: Line, incomplete: str) -> Iterator[str]:
    names = [name for name in line.artifacts.run_names() if RUN_NAME.fullmatch(name)]  # zsh evaluates what it is told
    yield from reversed(names)
    whole = incomplete.partition("@")[0]
    if whole in names and line.command in TAKES_CHECKPOINTS:
        yield from (f"{whole}@step-{step:06d}" for step in line.artifacts.run(whole).checkpoint_steps())
    if line.command in TAKES_BASE:
        yield "base"


def _settings(line: Line, incomplete: str) -> Iterator[str]:
    """`train.seed=` for each key; after the equals sign, the words that the key allows."""
    key, equals, value = incomplete.partition("=")
    if not equals:
        yield from (f"{name}=" for name in line.keys)
    elif key in line.keys:
        yield from (f"{key}={word}" for word in _words(line.keys[key], line, value))
