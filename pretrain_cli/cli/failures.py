"""Ends a failed command with two lines and its exit status, whatever the failure is."""

from __future__ import annotations

import errno
import os
import pathlib
import posixpath
import re
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType

import typer

from pretrain_cli import processes
from pretrain_cli.cli.commands import COMMANDS, command_of
from pretrain_cli.cli.console import Console
from pretrain_cli.cli.mistyped import meant_option
from pretrain_cli.cli.options import SHARED_OPTIONS, stopped
from pretrain_cli.cli.streams import OutputError, let_go
from pretrain_cli.cli.visible import shown
from pretrain_cli.errors import PtkError, UsageError, first_line
from pretrain_cli.formatting import shortened
from pretrain_cli.refusals import denied, disk_error, first_refusal, is_denied, not_followed

OF_LIBRARIES = ("TORCH", "PYTORCH_", "HF_", "TRANSFORMERS_", "ACCELERATE_", "WANDB_", "MPLBACKEND", "NCCL_", "CUDA_")
"""How the names of the variables begin that the libraries read."""
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
USUAL = ("no", "yes", "true", "false", "none")
"""Values that errors of other causes quote too."""
WALKERS = (shutil.__file__, pathlib.__file__, os.__file__, posixpath.__file__, "<frozen os>", "<frozen posixpath>")
"""Parts of Python that call themselves once for each level of a folder."""
OWN_CODE = Path(__file__).parents[1]


def explain(console: Console, error: Exception, words: Sequence[str]) -> int:
    """Show any exception as two lines; returns the exit status.

    Args:
        console: where the lines go.
        error: what the command raised.
        words: the command line, to name the command's help after a typing mistake.
    """
    if isinstance(error, PtkError):
        return fail(console, error)
    if isinstance(error, typer.TyperException):
        if not error.format_message():  # no command at all: its help has been shown
            return 0
        return fail(console, _usage(error, words))
    if isinstance(error, typer.Abort):
        return fail(console, stopped())
    if isinstance(error, BrokenPipeError):
        # The reader (`| head`) has gone: nothing to say, and Python's own flush at exit must not complain either.
        let_go(sys.stdout)
        return 0
    return fail(console, _system_error(error) if isinstance(error, OSError) else _bug(error), error)


def fail(console: Console, error: PtkError, cause: BaseException | None = None) -> int:
    """Show ``error``, and with --debug the traceback; returns its exit status."""
    if console.debug:
        print(shown("".join(traceback.format_exception(cause or error))), end="", file=sys.stderr)
    told = processes.report(error, cause or error.__cause__) if processes.world_size() > 1 else error
    if told is not None:
        try:
            console.error(told)
            sys.stdout.flush()
        except BrokenPipeError:
            let_go(sys.stdout)
        except OutputError:  # the error itself is told on stderr
            pass
    return error.exit_code


def _usage(error: typer.TyperException, words: Sequence[str]) -> UsageError:
    command = command_of(words)
    before = list(words[: next((place for place, word in enumerate(words) if word in COMMANDS), len(words))])
    if early := next((word for word in before if word in SHARED_OPTIONS), ""):
        return UsageError(f"{early} must come after the command.", f"Write: ptk {command or 'COMMAND'} … {early}")
    message = error.format_message().strip().rstrip(".")
    typed, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    options = {name for parameter in (context.command.params if context else ()) for name in parameter.opts}
    if typed and (meant := meant_option(options, typed)):
        return UsageError(f"ptk {command} has no option {typed}.", f"{meant}. All options: ptk {command} --help")
    end = "" if message.endswith("?") else "."
    return UsageError(f"{message}{end}", f"See: ptk {command} --help".replace("  ", " "))


def _system_error(error: OSError) -> PtkError:
    error = first_refusal(error)
    if told := not_followed(error) or disk_error(error):
        return told
    if is_denied(error) and error.filename is not None:
        return UsageError(*denied(error))
    named = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else ""  # or a descriptor
    place = f"{shortened(os.fsdecode(named))}: " if named else ""
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{place}{error.strerror}.", "Use shorter names, or fewer folders in folders.")
    result = PtkError(
        f"{place}{error.strerror or error}.", "Check the path and its permissions; --debug shows where it happened."
    )
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)):
        result.exit_code = 2
    return result


def _bug(error: Exception) -> PtkError:
    if told := _misset(error):
        return told
    if isinstance(error, RecursionError) and _running(error)[-1].co_filename in WALKERS:
        return UsageError(
            "Folders that this command works on are nested too deep.", "Look into its folders, and move such ones away."
        )
    text = " ".join(str(error).split())
    return PtkError(
        f"{type(error).__name__}: {text[:300]} (this is a bug in ptk).",
        "Run the command again with --debug and report the traceback.",
    )


def _misset(error: Exception) -> UsageError | None:
    """What to say of a library's variable with which its import fails, where ``error`` quotes it; never of a secret.

    A value such as 0, or the name of a variable that would help, stands in other errors too: those blame none. What
    accelerate's variables hold is read when training begins.
    """
    running = _running(error)
    modules = [code.co_filename for code in running if code.co_name == "<module>"]
    imports = bool(modules) and OWN_CODE not in Path(modules[-1]).parents
    within = isinstance(error, ValueError) and any("accelerate" in Path(code.co_filename).parts for code in running)
    for name, value in os.environ.items():
        if not name.startswith(OF_LIBRARIES if imports else "ACCELERATE_") or any(word in name for word in SECRETS):
            continue
        if not imports and (not within or value.lower() in USUAL or value.isdigit()):
            continue
        quoted = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", str(error), re.IGNORECASE) if value else None
        if quoted or name in str(error):
            message = f"A library can't use the environment variable {name}={value}: {first_line(error)[:200]}."
            return UsageError(message, f"Correct {name}, or unset it.")
    return None


def _running(error: BaseException) -> list[CodeType]:
    """The code that was running when ``error`` was raised, the innermost last."""
    return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
