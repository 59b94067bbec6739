"""Describes the fields of the config for flags, help and reference: type, default, meaning."""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Annotated

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from pretrain_cli.config.model import Config

WIDEST_METAVAR = 10
"""Longer lists of allowed words go into the help text, because they would squeeze it."""


@dataclass(frozen=True)
class Flag:
    """A config key that people type daily, offered as ``--name``."""

    key: str
    name: str = ""
    short: str = ""

    @property
    def option(self) -> str:
        return self.name or "--" + self.key.rpartition(".")[2].replace("_", "-")

    @property
    def parameter(self) -> str:
        return "flag_" + self.key.replace(".", "_")


def config_field(key: str) -> FieldInfo:
    """The declaration of a dotted config key."""
    section, _, name = key.partition(".")
    model = Config.model_fields[section]
    return model if not name else typing.cast(type[BaseModel], model.annotation).model_fields[name]


def flag_parameter(flag: Flag) -> inspect.Parameter:
    """The typer parameter of a config field. Values stay text: pydantic alone decides what is valid."""
    field = config_field(flag.key)
    names = [flag.option, flag.short] if flag.short else [flag.option]
    text = markup((field.description or "").split("\n")[0])
    repeatable = typing.get_origin(field.annotation) is tuple
    if repeatable:
        text = f"{text} Repeatable."
    kind = metavar(field)
    if len(kind) > WIDEST_METAVAR:
        text, kind = f"{escape(kind.replace('|', ', '))}. {text}", "WORD"
    if (default := default_text(field)) != "none":
        text = f"{text} [dim]\\[default: {escape(default)}][/]"
    annotation: object
    if field.annotation is bool:
        annotation = bool | None
        if field.default:
            names[0] = f"{names[0]}/--no-{names[0][2:]}"
        option = typer.Option(*names, help=text, show_default=False)
    else:
        annotation = list[str] | None if repeatable else str | None
        option = typer.Option(*names, help=text, metavar=kind, show_default=False)
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def markup(text: str) -> str:
    """A field's docstring as rich markup: backticks become bold."""
    return re.sub(r"`([^`]+)`", r"[bold]\1[/]", escape(text))


def default_text(field: FieldInfo) -> str:
    """The default as a person would write it; "none" where nothing is set."""
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or value == "":
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def metavar(field: FieldInfo) -> str:
    """What a value looks like: N, X, TEXT, TABLE, or the words that are allowed."""
    return "|".join(dict.fromkeys(_kinds(field.annotation)))


def _kinds(annotation: object) -> list[str]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Annotated, tuple):
        return _kinds(inner[0])
    if origin is typing.Literal:
        return [str(value) for value in inner]
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return ["TABLE"]
    if origin is not None:
        return [kind for part in inner if part is not types.NoneType for kind in _kinds(part)]
    return [
        "N" if annotation is int else "X" if annotation is float else "true|false" if annotation is bool else "TEXT"
    ]
