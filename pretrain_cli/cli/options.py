"""What can be typed after every command, and how is a flag made from a config field?"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.console import Console
from pretrain_cli.config.load import Resolved, load_config
from pretrain_cli.config.model import Config
from pretrain_cli.errors import Interrupted
from pretrain_cli.progress import Progress

SHARED = "Everywhere"
SHARED_OPTIONS = ("--artifacts", "--config", "--preset", "--set", "--json", "--quiet", "-q", "--plain", "--debug")
WIDEST_METAVAR = 14
"""Longer lists of allowed words go into the help text: they would squeeze it."""

ArtifactsOption = Annotated[
    Path,
    typer.Option(
        "--artifacts", envvar="PTK_ARTIFACTS", metavar="DIR", help="Folder of all outputs.", rich_help_panel=SHARED
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="PTK_CONFIG",
        metavar="FILE",
        help="Config file; without it ptk.toml, where there is one.",
        rich_help_panel=SHARED,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        envvar="PTK_PRESET",
        metavar="NAME",
        help="scratch, continue, smollm2 or tinysolar.",
        rich_help_panel=SHARED,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any config key; repeatable. List them: ptk config keys",
        rich_help_panel=SHARED,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=SHARED)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=SHARED)]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Lines in place of the live view, as in a pipe.", rich_help_panel=SHARED)
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", envvar="PTK_DEBUG", help="Show tracebacks and the libraries' own logs.", rich_help_panel=SHARED
    ),
]


@dataclass(frozen=True)
class Session:
    """What a command works with: the merged config, the artifact folder, the console, and the line that was typed."""

    resolved: Resolved
    artifacts: Artifacts
    console: Console
    command: tuple[str, ...]

    @property
    def config(self) -> Config:
        return self.resolved.config

    def chose(self, key: str) -> bool:
        """Whether a layer above the defaults set ``key``."""
        return self.resolved.origins.get(key, "default") != "default"

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """What draws the stages of this command; the terminal is left as it was, however the body ends."""
        from pretrain_cli.cli.progress import LiveProgress, make_progress

        progress = make_progress(self.console, every_line=self.chose("train.logging_steps"))
        try:
            yield progress
        finally:
            if isinstance(progress, LiveProgress):
                progress.close()


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
    return model if not name else typing.cast(Any, model.annotation).model_fields[name]


def command(*flags: Flag | str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command body its `Session`: adds the shared options and ``flags``, merges the config, sets up the output.

    The body's first parameter receives the session; its other parameters stay what they are.
    """
    declared = [flag if isinstance(flag, Flag) else Flag(flag) for flag in flags]

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def wrapper(**values: Any) -> None:
            given = {flag.key: _given(values.pop(flag.parameter)) for flag in declared}
            session = _open_session(values, given)
            try:
                body(session, **values)
            except KeyboardInterrupt:
                raise Interrupted("Stopped by Ctrl-C.", "What was complete is kept; run the command again.") from None

        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        parameters = [
            _keyword(parameter) for parameter in [*own, *map(_flag_parameter, declared), *_shared_parameters()]
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapper.__doc__ = _unwrapped(body.__doc__ or "")
        del wrapper.__wrapped__
        return wrapper

    return decorate


def _unwrapped(text: str) -> str:
    """A docstring with each paragraph on one line: the terminal's width breaks it, not the source's."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _shared_parameters() -> list[inspect.Parameter]:
    shared: list[tuple[str, Any, Any]] = [
        ("artifacts", ArtifactsOption, Path("artifacts")),
        ("config", ConfigOption, None),
        ("preset", PresetOption, None),
        ("assignments", SetOption, None),
        ("json", JsonOption, False),
        ("quiet", QuietOption, False),
        ("plain", PlainOption, False),
        ("debug", DebugOption, False),
    ]
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in shared
    ]


def _flag_parameter(flag: Flag) -> inspect.Parameter:
    """A typer parameter out of a config field. Values stay text: pydantic alone says what is valid."""
    field = config_field(flag.key)
    names = [flag.option, flag.short] if flag.short else [flag.option]
    text = markup((field.description or "").split("\n")[0])
    kind = metavar(field)
    if len(kind) > WIDEST_METAVAR:
        text, kind = f"{escape(kind.replace('|', ', '))}. {text}", "WORD"
    if (default := default_text(field)) != "none":
        text = f"{text} [dim]\\[default: {escape(default)}][/]"
    annotation: Any
    if field.annotation is bool:
        annotation = bool | None
        if field.default:
            names[0] = f"{names[0]}/--no-{names[0][2:]}"
        option = typer.Option(*names, help=text, show_default=False)
    else:
        annotation = list[str] | None if typing.get_origin(field.annotation) is tuple else str | None
        option = typer.Option(*names, help=text, metavar=kind, show_default=False)
    return inspect.Parameter(
        flag.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _given(value: Any) -> Any:
    """A flag's value, or None where it wasn't typed (typer gives an empty list for a repeatable one)."""
    return None if isinstance(value, list) and not value else value


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


def _kinds(annotation: Any) -> list[str]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return [str(value) for value in typing.get_args(annotation)]
    if origin is tuple:
        return _kinds(typing.get_args(annotation)[0])
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return ["TABLE"]
    if origin is not None:
        return [kind for part in typing.get_args(annotation) if part is not type(None) for kind in _kinds(part)]
    return [{int: "N", float: "X", bool: "true|false"}.get(annotation, "TEXT")]


def _open_session(values: dict[str, Any], flags: Mapping[str, Any]) -> Session:
    console = Console(
        json=values.pop("json"), quiet=values.pop("quiet"), plain=values.pop("plain"), debug=values.pop("debug")
    )
    artifacts = Artifacts(values.pop("artifacts"))
    resolved = load_config(
        file=values.pop("config"),
        preset=values.pop("preset"),
        assignments=values.pop("assignments") or (),
        flags=flags,
    )
    quieten_libraries(console.debug)
    return Session(resolved, artifacts, console, ("ptk", *sys.argv[1:]))


def with_config(session: Session, **values: Any) -> Session:
    """The session with other config values: ``with_config(session, model__base="smollm2")``."""
    from pretrain_cli.config.load import changed

    return replace(session, resolved=replace(session.resolved, config=changed(session.config, **values)))


def quieten_libraries(debug: bool) -> None:
    """Keep other libraries' bars and warnings out of the view; --debug lets their logs through.

    Set in the environment before they are imported, so that worker processes inherit it.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
    else:
        warnings.simplefilter("default")
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)


def words(values: Sequence[str] | None) -> tuple[str, ...]:
    """Repeatable arguments as a tuple."""
    return tuple(values or ())
