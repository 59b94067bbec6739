"""Runs one command line and ends the process with its exit status."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from pretrain_cli import file_systems, processes
from pretrain_cli.cli import completing
from pretrain_cli.cli.commands import command_of, make_app
from pretrain_cli.cli.console import Console, shell
from pretrain_cli.cli.failures import explain, fail
from pretrain_cli.cli.options import stopped
from pretrain_cli.cli.stopping import STOPPING
from pretrain_cli.cli.streams import let_go, make_ready
from pretrain_cli.cli.tab import VARIABLE
from pretrain_cli.errors import UsageError, panic_of

NEED_DOCSTRINGS = ("train", "evaluate", "export", "plan", "demo")
"""Commands that open models with transformers, which reads its own docstrings."""
FOLDERS = ("--output", "-o", "--artifacts", "--config", "--prompts-file")
"""Options that name a folder or a file."""


def main() -> None:
    """The `ptk` command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller (`<&-`, a daemon): as good as empty
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    make_ready()
    os.environ.update(processes.safe_path())
    STOPPING.listen()
    status = run(sys.argv[1:])
    if "triton" not in sys.modules:  # it complains at the exit, in 30 lines, of objects that nobody has freed
        gc.freeze()  # a last search for garbage among torch's objects would take 0.3 s more
    if file_systems.unfinished.is_set():
        sys.stderr.flush()
        os._exit(status)
    exec("")  # a Ctrl-C inside a library's exec() leaves a mark with CPython, which would end us by the signal instead
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit status. Everything a user can meet ends here as two lines."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # while an error was told, or waited for another process to tell its own
        return STOPPING.tell()[1]


def _run(arguments: Sequence[str]) -> int:
    if VARIABLE in os.environ:
        try:
            return completing.answer_shell(make_app)
        except KeyboardInterrupt:  # the shell that asked shows what is typed: nothing belongs there
            return stopped().exit_code
    words = _as_meant(arguments)
    if any(word.endswith("-completion") for word in words):
        completing.improve_bash_script()
    console = Console(
        json="--json" in words,
        quiet="--quiet" in words or "-q" in words,
        debug=_wants_debug(words),
        place=_artifacts(words),
    )
    try:
        _check_folders(words)
        command = command_of(words)
        if command and "--help" not in words:
            _check_working_folder()
        processes.check_threads(os.environ)
        processes.join_launcher(trains=command == "train")
        if sys.flags.optimize > 1 and command in NEED_DOCSTRINGS and "--help" not in words:
            raise UsageError(
                "Python runs without docstrings (PYTHONOPTIMIZE=2 or -OO), and transformers can't open a model then.",
                "Unset PYTHONOPTIMIZE, or set it to 1.",
            )
        status = make_app()(args=words, prog_name="ptk", standalone_mode=False, obj=console)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except Exception as error:
        if STOPPING.broke_an_import:
            return fail(console, stopped(), error)
        return explain(console, error, words)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # click and rich end with 1 when the reader has gone (`| head`), though nothing has failed
        let_go(sys.stdout)
        return 0
    except KeyboardInterrupt:
        return fail(console, stopped())
    except BaseException as error:
        if (told := panic_of(error)) is None:
            raise
        return fail(console, told, error)


def _check_folders(words: Sequence[str]) -> None:
    """An empty path, as an unset variable of a shell gives it, would be the current folder. Typer can't tell the two.

    Raises:
        UsageError: an option that names a folder or a file is empty.
    """
    for option, value in _given(words):
        if option in FOLDERS and value == "":
            raise UsageError(f"{option} is empty.", "Name something, or leave it out.")


def _check_working_folder() -> None:
    """Check that there is one: libraries end the process without it.

    Raises:
        UsageError: it was removed while the shell was in it.
    """
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise UsageError(
            "The working folder is gone: it was removed, or made again under the same name.",
            "Go to a folder that exists (cd), then run the command again.",
        ) from error


def _artifacts(words: Sequence[str]) -> str:
    """The option ``--artifacts`` as it was typed, quoted for a shell; empty where it wasn't."""
    folders = [value for option, value in _given(words) if option == "--artifacts" and value]
    return shell("--artifacts", folders[-1]) if folders else ""


def _given(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each word with what may be its value: what stands behind its "=", or the next word; None for none."""
    for word, following in itertools.zip_longest(words, words[1:]):
        if word == "--":
            return
        option, equals, value = word.partition("=")
        yield option, value if equals else following


def _wants_debug(words: Sequence[str]) -> bool:
    return "--debug" in words or os.environ.get("PTK_DEBUG", "").lower() in ("1", "true", "t", "yes", "y", "on")


def _as_meant(arguments: Sequence[str]) -> list[str]:
    """`ptk help train` and `ptk version` are options here; `--resume` without a value means the run touched last.

    Typer has no options with an optional value.
    """
    words = list(arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words == ["version"]:
        words = ["--version"]
    if "train" in words and "--resume" in words:
        place = words.index("--resume")
        if place + 1 == len(words) or words[place + 1].startswith("-"):
            words[place] = "--resume="
    return words
