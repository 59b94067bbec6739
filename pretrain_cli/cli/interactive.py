"""Implements `ptk generate --interactive`: a line, the model's text, the next line."""

from __future__ import annotations

import atexit
import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.cli.session import Session
from pretrain_cli.cli.stopping import Terminated
from pretrain_cli.small_files import small_bytes

if TYPE_CHECKING:
    from pretrain_cli.generation.conversation import Conversation
    from pretrain_cli.generation.results import GeneratedText

HISTORY_LINES = 1000
MOST_HISTORY_BYTES = 10_000_000
HELP = (
    "Type text, and the model continues all text so far. Empty line: continue. /new: start over. /help: this text. "
    "/quit or Ctrl-D: end."
)
COMMAND = re.compile(r"/[a-z]+")


def converse(session: Session, typed: list[str], model: str | None, checkpoint: str | None) -> None:
    """Continue the prompts that were ``typed`` with the command, then each line, until the input ends.

    In a terminal, lines can be edited and recalled; Ctrl-C ends the current text, or at the prompt the session.
    In a pipe, each line of standard input is a turn.
    """
    from pretrain_cli.generation.conversation import Conversation

    in_terminal = sys.stdin.isatty() and session.console.speaks
    with session.progress() as progress:
        progress.stage("loading the model")
        conversation = Conversation(session.config, session.artifacts, progress, model=model, checkpoint=checkpoint)
        progress.end_stage()
    if in_terminal:
        _edit_lines(session.artifacts.root / ".generate_history")
        session.console.hint(HELP)
    samples: list[GeneratedText] = []
    for line in _lines(typed, in_terminal):
        if COMMAND.fullmatch(line):
            if line in ("/quit", "/exit"):
                break
            if line == "/new":
                conversation.forget()
            else:
                unknown = "" if line == "/help" else f"There is no {line}. To send it, put a space before it. "
                session.console.hint(unknown + HELP)
            continue
        samples += _turn(session, conversation, line, in_terminal)
    if session.console.json:
        session.console.print_json({"samples": samples})


def _turn(session: Session, conversation: Conversation, line: str, in_terminal: bool) -> list[GeneratedText]:
    """The sample of one turn; none if Ctrl-C stopped it in a terminal."""
    try:
        sample = conversation.say(line, lambda piece: session.console.written(piece, end=""))
    except KeyboardInterrupt as stop:
        session.console.text("")
        if not in_terminal or isinstance(stop, Terminated):
            raise
        return []
    session.console.text("")
    if in_terminal and not sample.text:
        session.console.hint("The model wrote nothing: to it, the text ends here. Type more, or /new to start over.")
    return [sample]


def _lines(typed: list[str], in_terminal: bool) -> Iterator[str]:
    yield from typed
    while True:
        if in_terminal:
            try:
                yield input("> ")
            except Terminated:
                print()
                raise
            except (EOFError, KeyboardInterrupt):
                print()
                return
        else:
            line = sys.stdin.readline()
            if not line:
                return
            yield line.rstrip("\r\n")


def _edit_lines(history: Path) -> None:
    """Let `input` edit lines and recall them across sessions, if the system has readline."""
    try:
        import readline
    except ImportError:  # Windows: its console edits lines itself
        return
    with contextlib.suppress(OSError):
        small_bytes(history, MOST_HISTORY_BYTES)  # readline itself waits for the writer of a pipe, for ever
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)

    def save() -> None:
        with contextlib.suppress(OSError):
            if history.is_symlink():  # what it names may be anybody's
                return
            readline.write_history_file(history)

    atexit.register(save)
