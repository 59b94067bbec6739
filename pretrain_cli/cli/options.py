"""Makes commands out of functions: adds the shared options, the config flags and the examples."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pretrain_cli.cli.completing import with_completion
from pretrain_cli.cli.console import Console
from pretrain_cli.cli.fields import Flag, flag_parameter
from pretrain_cli.cli.session import open_session
from pretrain_cli.cli.shared_folder import shared_folder
from pretrain_cli.cli.stopping import STOPPING
from pretrain_cli.errors import Interrupted, UsageError

SHARED = "Common options"
SHARED_OPTIONS = ("--artifacts", "--config", "--preset", "--set", "--json", "--quiet", "-q", "--plain", "--debug")

ArtifactsOption = Annotated[
    Path,
    typer.Option(
        "--artifacts",
        envvar="PTK_ARTIFACTS",
        readable=False,  # what a command does with it tells what is wrong
        metavar="DIR",
        help="Folder for all outputs, or its address in object storage.",
        rich_help_panel=SHARED,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="PTK_CONFIG",
        readable=False,
        metavar="FILE",
        help="Config file. Default: ptk.toml, if it exists.",
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
        help="Set any config key; repeatable. To list the keys: ptk config keys",
        rich_help_panel=SHARED,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=SHARED)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.", rich_help_panel=SHARED)]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Print plain lines, as in a pipe, not the live view.", rich_help_panel=SHARED)
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", envvar="PTK_DEBUG", help="Show tracebacks and library logs.", rich_help_panel=SHARED),
]


def command(*flags: Flag | str, examples: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function its `Session`: adds the shared options and ``flags``, merges the config, sets up the output.

    Args:
        flags: config keys that the command offers as flags.
        examples: lines to learn the command from, shown at the end of its help and in the reference.

    The function's first parameter receives the session; its other parameters stay what they are.
    """
    declared = [flag if isinstance(flag, Flag) else Flag(flag) for flag in flags]

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def wrapper(**values: Any) -> None:
            given = {flag.key: _given(values.pop(flag.parameter)) for flag in declared}
            context: typer.Context = values.pop("context")
            outer = context.obj  # ends the command where it fails, with the warnings until then
            console = Console(**{name: values.pop(name) for name in ("json", "quiet", "plain", "debug")})
            if isinstance(outer, Console):
                console = replace(console, warnings=outer.warnings, place=outer.place)
            shared = {name: values.pop(name) for name in ("artifacts", "config", "preset", "assignments")}
            _check_named(context, values)
            session = open_session(console, **shared, flags=given)
            try:
                with shared_folder(session, body.__name__):
                    body(session, **values)
            except KeyboardInterrupt:
                raise stopped() from None

        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        of_keys = [with_completion(flag_parameter(flag), flag.key) for flag in declared]
        others = [[with_completion(parameter) for parameter in group] for group in (own, _shared_parameters())]
        parameters = [_keyword(parameter) for parameter in [context, *others[0], *of_keys, *others[1]]]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapper.__doc__ = _unwrapped(body.__doc__ or "")
        wrapper.examples = examples  # type: ignore[attr-defined]
        del wrapper.__wrapped__
        return wrapper

    return decorate


def _check_named(context: typer.Context, values: Mapping[str, object]) -> None:
    """An empty name, as an unset variable of a shell gives it, would be the current folder's.

    Raises:
        UsageError: an option or argument that names something is empty.
    """
    for parameter in context.command.params:
        given = values.get(parameter.name or "")
        if str(parameter.metavar).startswith("["):  # --resume alone: the run touched last
            continue
        one_of_several = isinstance(given, (list, tuple)) and "" in given and parameter.name != "prompts"
        if one_of_several or (given == "" and parameter.default != ""):
            is_option = parameter.param_type_name == "option"
            what = parameter.opts[0] if is_option else parameter.metavar or parameter.opts[0]
            raise UsageError(f"{what} is empty.", "Name something, or leave it out.")


def stopped() -> Interrupted:
    """The error of a command that Ctrl-C, SIGTERM or SIGHUP ended."""
    message, exit_code = STOPPING.tell()
    hint = "Everything that was complete is kept. Run the command again to continue."
    return Interrupted(message, hint, exit_code)


def words(values: Sequence[str] | None) -> tuple[str, ...]:
    """Repeatable arguments as a tuple."""
    return tuple(values or ())


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


def _given(value: Any) -> Any:
    """A flag's value, or None where it wasn't typed (typer gives an empty list for a repeatable one)."""
    return None if isinstance(value, list) and not value else value
