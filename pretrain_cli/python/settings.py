"""Turns keyword arguments into a config: each is a config key, with or without its section."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar, cast

from pretrain_cli.config.load import Resolved, known_keys, load_config, with_keywords
from pretrain_cli.config.model import Config
from pretrain_cli.errors import ConfigError
from pretrain_cli.progress import Progress

Function = TypeVar("Function", bound=Callable[..., object])
STAGES = {
    "prepare": "pretrain_cli.data.prepare",
    "train": "pretrain_cli.training.run",
    "evaluate": "pretrain_cli.evaluation.run",
    "generate": "pretrain_cli.generation.run",
}
"""Function → the module of the stage that it calls."""
Settings = Path | str | Config | None
"""A config file, a config that `load_config` has made, or None: ``ptk.toml``, where there is one."""


def settings(
    sections: Sequence[str], config: Settings, preset: str | None, keywords: Mapping[str, object], progress: Progress
) -> Resolved:
    """Defaults < preset < file < environment < keywords, validated.

    Args:
        sections: of the function, the first where a bare name is looked for first.
        config: a file, or a whole config that the keywords change.
        preset: a preset's name.
        keywords: ``seed=1`` is the key ``seed`` of the function's own sections, ``train__seed=1`` is ``train.seed``.
        progress: warned where a file or a variable lets a base's own code run.

    Raises:
        ConfigError: a keyword that no key has, or that several have; a value that isn't valid.
    """
    named = {key_of(name, sections): value for name, value in keywords.items()}
    if isinstance(config, Config):
        return with_keywords(config, named)
    found = load_config(file=Path(config) if config is not None else None, preset=preset, keywords=named)
    for note in found.notes:
        progress.warn(note)
    return found


def key_of(name: str, sections: Sequence[str]) -> str:
    """The config key that a keyword argument stands for.

    Raises:
        ConfigError: no key, or more than one, is called so.
    """
    known = known_keys()
    dotted = name.replace("__", ".", 1)
    if dotted in known:
        return dotted
    own = next((f"{section}.{name}" for section in sections if f"{section}.{name}" in known), "")
    found = [key for key in known if key.partition(".")[2] == name]
    if own or len(found) == 1:
        return own or found[0]
    if found:
        choices = " or ".join(key.replace(".", "__", 1) for key in found)
        raise ConfigError(f"{name} could be one of {len(found)} settings.", f"Write {choices}.")
    names = {key.partition(".")[2]: key for key in known}
    nearest = difflib.get_close_matches(name, [*names, *(key.replace(".", "__", 1) for key in known)], n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else "List all keys: ptk config keys"
    raise ConfigError(f"There is no setting {name}.", hint)


def offers(*sections: str) -> Callable[[Function], Function]:
    """Let editors and notebooks complete the keys of ``sections`` as keyword arguments of a function.

    Called with a config and artifacts in its first places, the function is the stage itself.
    """

    def declare(function: Function) -> Function:
        own = inspect.signature(function)
        *parameters, rest = own.parameters.values()
        taken = set(own.parameters)
        for key in known_keys():
            section, _, name = key.partition(".")
            if section in sections and name not in taken:
                taken.add(name)
                parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None))

        @functools.wraps(function)
        def call(*given: object, **named: object) -> object:
            if given and isinstance(given[0], Config):  # as the stage itself is called, and this was before
                return getattr(import_module(STAGES[function.__name__]), function.__name__)(*given, **named)
            return function(*given, **named)

        call.__signature__ = own.replace(parameters=[*parameters, rest])  # type: ignore[attr-defined]
        return cast(Function, call)

    return declare
