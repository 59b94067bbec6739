"""Which commands are there, and how does each way of failing end the process?"""

from __future__ import annotations

import gc
import importlib
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pretrain_cli import processes
from pretrain_cli.cli.console import Console, let_go
from pretrain_cli.cli.options import SHARED_OPTIONS
from pretrain_cli.errors import Interrupted, PtkError, UsageError
from pretrain_cli.version import __version__

CTRL_C_ECHO_S = 5.0
"""For so long after a Ctrl-C in the middle of an import an error is the Ctrl-C's: libraries turn it into their own."""

ROAD, START, MORE = "The road", "To begin", "More"

COMMANDS: dict[str, str] = {
    "prepare": ROAD,
    "train": ROAD,
    "evaluate": ROAD,
    "generate": ROAD,
    "demo": START,
    "doctor": START,
    "plan": MORE,
    "inspect": MORE,
    "config": MORE,
    "runs": MORE,
    "export": MORE,
}
"""Command → panel of the help; each lives in the module of its name."""

EXAMPLES = {
    "prepare": (
        "ptk prepare data.txt",
        "ptk prepare book.txt notes/ 'logs/*.jsonl.gz'",
        "ptk prepare data.txt --base smollm2",
        "cat data.txt | ptk prepare - --vocab-size 4000",
    ),
    "train": (
        "ptk train --device auto --workers 4",
        "ptk train --max-minutes 2 --run first",
        "ptk train --resume",
        "ptk train --preset continue --base smollm2 --max-steps 200",
        "ptk train --set train.learning_rate=1e-3",
    ),
    "evaluate": (
        "ptk evaluate",
        "ptk evaluate first second",
        "ptk evaluate --on mine=other.txt --on general --sample 20000",
        "ptk evaluate first --memorization --json",
    ),
    "generate": (
        'ptk generate "Once upon a time"',
        'ptk generate "Once upon a time" --samples 3 --temperature 1.0',
        'ptk generate "Call me" --against base',
        "echo 'Dear reader' | ptk generate - --greedy",
    ),
    "export": ("ptk export", "ptk export first --to gguf --quantization q8_0", "ptk export --to ollama -o ./mine"),
    "plan": ("ptk plan", "ptk plan data.txt --max-minutes 30", "ptk plan --for h100x8 --hourly-rate 24 --size large"),
    "inspect": ("ptk inspect", "ptk inspect --random --tokens", "ptk inspect --stats --json"),
    "demo": ("ptk demo", "ptk demo --artifacts somewhere-else"),
    "doctor": ("ptk doctor", "ptk doctor --json"),
    "config": ("ptk config keys train.learning_rate", "ptk config show --changed", "ptk config init"),
    "config show": (
        "ptk config show",
        "ptk config show --changed --preset tinysolar",
        "PTK_TRAIN__SEED=1 ptk config show --set train.keep=5 --json",
    ),
    "config init": ("ptk config init", "ptk config init mine.toml --preset continue", "ptk train --config mine.toml"),
    "config keys": ("ptk config keys", "ptk config keys train", "ptk config keys train.learning_rate"),
    "runs": ("ptk runs list", "ptk runs compare first second"),
    "runs list": ("ptk runs list", "ptk runs list --json"),
    "runs show": ("ptk runs show", "ptk runs show first"),
    "runs compare": ("ptk runs compare first second",),
    "runs remove": ("ptk runs remove first second", "ptk runs remove --keep-best 3 --yes"),
}
"""Command → lines to learn it from, at the end of its help and in the reference."""


class Plain:
    """Help that names an argument by its word and a switch by its name alone, without Python's types of them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, to be shown and parsed."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.param_type_name == "argument" or parameter.is_flag:
                parameter.display_type_rich = _no_type
        return parameters


class PlainCommand(Plain, TyperCommand):
    """A command with such help."""


class PlainGroup(Plain, TyperGroup):
    """A group of commands with such help."""


def _no_type(ctx: object) -> None:
    return None


def make_app() -> typer.Typer:
    """The command line, with every command's help but none of the heavy libraries."""
    app = typer.Typer(
        name="ptk",
        cls=PlainGroup,
        help="Raw text to a language model that has learned from it: prepare, train, evaluate, generate.",
        epilog="Begin with [bold]ptk demo[/], or with your own text: [bold]ptk prepare data.txt[/]",
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, panel in COMMANDS.items():
        module = importlib.import_module(f"pretrain_cli.cli.{name}")
        if hasattr(module, "app"):
            for child in module.app.registered_commands:
                child.cls, child.epilog = PlainCommand, _examples(f"{name} {child.name}")
            app.add_typer(module.app, name=name, cls=PlainGroup, epilog=_examples(name), rich_help_panel=panel)
        else:
            settings: dict[str, Any] = {"cls": PlainCommand, "epilog": _examples(name), "rich_help_panel": panel}
            app.command(name, **settings)(getattr(module, name))
    return app


def _examples(name: str) -> str:
    return "\n".join(["[bold]Examples[/]", *(f"  $ {line}".replace("[", "\\[") for line in EXAMPLES[name])])


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ptk {__version__}")
        raise typer.Exit()


def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    pass


class CtrlC:
    """When Ctrl-C last broke an import off, for as long as no command has a handler of its own."""

    def __init__(self) -> None:
        self._at = -math.inf

    def listen(self) -> None:
        """Note where Ctrl-C hits from now on, beside what Python does with it; where it is ignored it stays ignored."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)

    @property
    def broke_an_import(self) -> bool:
        """Whether it did so just now."""
        return time.monotonic() - self._at < CTRL_C_ECHO_S

    def _note(self, number: int, frame: FrameType | None) -> None:
        within: FrameType | None = frame
        while within is not None and "importlib._bootstrap" not in within.f_code.co_filename:
            within = within.f_back
        self._at = time.monotonic() if within is not None else -math.inf
        signal.default_int_handler(number, frame)


def run(arguments: Sequence[str], ctrl_c: CtrlC | None = None) -> int:
    """Run one command line; returns its exit status. Everything a user can meet ends here as two lines."""
    words = _optional_values(arguments)
    if "train" in words:
        processes.join_launcher()
    console = Console(json="--json" in words, quiet="--quiet" in words or "-q" in words, debug=_wants_debug(words))
    try:
        status = make_app()(args=words, prog_name="ptk", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except Exception as error:
        if ctrl_c is not None and ctrl_c.broke_an_import:
            return _fail(console, _stopped(), error)
        return _failed(console, error, words)
    except KeyboardInterrupt:
        return _fail(console, _stopped())


def _failed(console: Console, error: Exception, words: Sequence[str]) -> int:
    """The exit status of an error, which is shown as two lines."""
    if isinstance(error, PtkError):
        return _fail(console, error)
    if isinstance(error, typer.TyperException):
        if not error.format_message():  # no command at all: its help has been shown
            return 0
        return _fail(console, _usage(error, words))
    if isinstance(error, typer.Abort):
        return _fail(console, _stopped())
    if isinstance(error, BrokenPipeError):
        # The reader (`| head`) has gone: nothing to say, and Python's own flush at exit must not complain either.
        let_go(sys.stdout)
        return 0
    return _fail(console, _system_error(error) if isinstance(error, OSError) else _bug(error), error)


def main() -> None:
    """The `ptk` command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller (`<&-`, a daemon): as good as empty
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    ctrl_c = CtrlC()
    ctrl_c.listen()
    status = run(sys.argv[1:], ctrl_c)
    gc.freeze()  # a last search for garbage among torch's objects would take 0.3 s more
    exec("")  # a Ctrl-C inside a library's exec() leaves a mark with CPython, which would end us by the signal instead
    sys.exit(status)


def _fail(console: Console, error: PtkError, cause: BaseException | None = None) -> int:
    if console.debug:
        traceback.print_exception(cause or error)
    shown = processes.report(error, cause or error.__cause__) if processes.world_size() > 1 else error
    if shown is not None:
        try:
            console.error(shown)
            sys.stdout.flush()
        except BrokenPipeError:
            let_go(sys.stdout)
    return error.exit_code


def _wants_debug(words: Sequence[str]) -> bool:
    return "--debug" in words or os.environ.get("PTK_DEBUG", "").lower() in ("1", "true", "t", "yes", "y", "on")


def _optional_values(arguments: Sequence[str]) -> list[str]:
    """`--resume` may stand without its value: the latest run is meant. Typer has no options of that kind."""
    words = list(arguments)
    if "train" in words and "--resume" in words:
        place = words.index("--resume")
        if place + 1 == len(words) or words[place + 1].startswith("-"):
            words[place] = "--resume="
    return words


def _stopped() -> Interrupted:
    return Interrupted("Stopped by Ctrl-C.", "What was complete is kept.")


def _usage(error: typer.TyperException, words: Sequence[str]) -> UsageError:
    place = next((index for index, word in enumerate(words) if word in COMMANDS), len(words))
    command = " ".join(words[place : place + 1])
    if any(f"{command} {word}" in EXAMPLES for word in words[place + 1 : place + 2]):
        command = " ".join(words[place : place + 2])
    early = next((word for word in words[:place] if word in SHARED_OPTIONS), "")
    if early:
        return UsageError(f"{early} comes after the command.", f"Write: ptk {command or 'COMMAND'} … {early}")
    message = error.format_message().strip().rstrip(".")
    end = "" if message.endswith("?") else "."
    return UsageError(f"{message}{end}", f"See: ptk {command} --help".replace("  ", " "))


def _system_error(error: OSError) -> PtkError:
    place = f"{error.filename}: " if error.filename else ""
    result = PtkError(
        f"{place}{error.strerror or error}.", "Look at the path and its rights; --debug shows where it happened."
    )
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)):
        result.exit_code = 2
    return result


def _bug(error: Exception) -> PtkError:
    text = " ".join(str(error).split())
    return PtkError(
        f"{type(error).__name__}: {text[:300]} (this is a bug in ptk).",
        "Run it again with --debug and report the traceback it shows.",
    )
