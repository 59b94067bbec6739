"""Says which option and argument completes what, for typer and for the table that answers a Tab without typer."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import typing
from collections.abc import Callable
from pathlib import Path

import typer
from typer.models import ParameterInfo

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.cli.completion_values import CHECKPOINTS, KEYS, RUNS, SETTINGS, Line, Values, completions
from pretrain_cli.cli.fields import config_field, metavar
from pretrain_cli.cli.tab import VARIABLE, join_bash_words
from pretrain_cli.config.load import known_keys, preset_names

NO_SPACE = "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
"""After a lone "train.seed=", the value follows at once."""


def answer_shell(make_app: Callable[[], typer.Typer]) -> int:
    """Let typer answer the shell, where the table can't, or print its script; returns the exit status."""
    told = join_bash_words(os.environ) if os.environ[VARIABLE] == "complete_bash" else ""
    printed, status = io.StringIO(), 0
    with contextlib.redirect_stdout(printed):
        try:
            make_app()(args=[], prog_name="ptk", standalone_mode=False)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    text = printed.getvalue()
    for line in (_improved(text) if os.environ[VARIABLE] == "source_bash" else text).splitlines():
        print(line.removeprefix(told))
    return status


def improve_bash_script() -> None:
    """Let bash write no space after a lone `KEY=`, in the script that is printed or installed."""
    from typer._completion_shared import _completion_scripts

    if NO_SPACE not in _completion_scripts["bash"]:
        _completion_scripts["bash"] = _improved(_completion_scripts["bash"])


def _improved(script: str) -> str:
    return script.replace("    return 0\n", f"{NO_SPACE}    return 0\n")


def with_completion(parameter: inspect.Parameter, key: str = "") -> inspect.Parameter:
    """``parameter`` of a command, whose values complete: by its config ``key``, its name or its metavar."""
    for info in typing.get_args(parameter.annotation)[1:]:
        if isinstance(info, ParameterInfo):
            # In an Annotated, typer takes an option's first name for its default until the command is made.
            names = [str(info.default), *(getattr(info, "param_decls", None) or ()), str(info.metavar)]
            find = (
                functools.partial(values_of_key, key) if key else next((VALUES[n] for n in names if n in VALUES), None)
            )
            info.autocompletion = _for_typer(find) if find else None
    return parameter


def values_of_parameters(body: Callable[..., object]) -> dict[str, Values]:
    """Name of a parameter of a command's function → what completes it, where something does."""
    found = {}
    for name, parameter in inspect.signature(body).parameters.items():
        for info in typing.get_args(parameter.annotation)[1:]:
            find = getattr(info.autocompletion, "find", None) if isinstance(info, ParameterInfo) else None
            if find is not None and (values := find()):
                found[name] = values
    return found


def values_of_key(key: str) -> Values:
    """What completes the values of a config key: the words that it allows, or some that are known."""
    if key in BY_KEY:
        return BY_KEY[key]()
    return [word for word in metavar(config_field(key)).split("|") if word == word.lower()]


def values_by_key() -> dict[str, Values]:
    """Config key → what completes its values."""
    return {key: values_of_key(key) for key in known_keys()}


def _for_typer(find: Callable[[], Values]) -> Callable[..., list[str]]:
    """What typer calls with its context and the word so far."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return completions(find(), _line(ctx), incomplete)

    complete.find = find  # type: ignore[attr-defined]
    return complete


def _line(context: typer.Context) -> Line:
    given = context.params
    runs = [
        given.get(name)
        for name, values in values_of_parameters(context.command.callback or _nothing).items()
        if values == RUNS
    ]
    # an option whose value is still missing leaves the arguments unassigned
    named = [*(name for entry in runs for name in (entry if isinstance(entry, list) else [entry])), *context.args]
    folder = given.get("artifacts") or os.environ.get("PTK_ARTIFACTS") or "artifacts"
    run = next((name for name in named if name), None)
    return Line(str(context.info_name), Artifacts(Path(folder)), run, values_by_key())


def _nothing() -> None:
    """The function of a command that has none."""


def _sizes() -> Values:
    from pretrain_cli.model.sizes import SIZES

    return ["auto", *(shape.name for shape in SIZES)]


def _machines() -> Values:
    from pretrain_cli.model.accelerators import ACCELERATORS

    return list(ACCELERATORS)


def _of(*words: str) -> Callable[[], Values]:
    return lambda: list(words)


def _kind(name: str) -> Callable[[], Values]:
    return lambda: name


BY_KEY: dict[str, Callable[[], Values]] = {
    "model.size": _sizes,
    "model.base": _of("smollm2"),
    "train.optimizer": _of("auto", "adamw", "muon"),
    "train.teacher": _kind(RUNS),
    **{f"{section}.device": _of("auto", "cpu", "cuda", "mps") for section in ("train", "evaluate", "generate")},
}
"""Config keys that allow any text, but have some that are known."""
VALUES: dict[str, Callable[[], Values]] = {
    "--preset": preset_names,
    "--set": _kind(SETTINGS),
    "--checkpoint": _kind(CHECKPOINTS),
    "--to": _of("hf", "gguf", "ollama"),
    "--quantization": _of("f16", "q8_0"),
    "--split": _of("train", "validation"),
    "--for": _machines,
    "RUN": _kind(RUNS),
    "[RUN]": _kind(RUNS),
    "MODEL": _kind(RUNS),
    "KEY": _kind(KEYS),
}
"""Name of an option, or metavar → what completes its values."""
