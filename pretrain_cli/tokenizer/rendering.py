"""Renders a chat template in a process of its own: a template is a program, which may loop or ask for all memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from pretrain_cli.errors import ModelError, first_line
from pretrain_cli.processes import safe_path

START_S = 300.0
RENDER_S = 20.0
MOST_BYTES = 1_000_000_000
"""Memory of a rendering, beyond what the libraries take."""
MOST_CHARACTERS = 10_000_000
MOST_CPU_S = 120
"""After which the process ends by itself, where the one that asks was killed."""


class Renderer:
    """A process that renders one template. It ends with this one, or when nobody needs it any more."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, **safe_path()},
            start_new_session=True,  # a Ctrl-C ends an answer, not the conversation
        )
        self.close = weakref.finalize(self, _end, self._process)
        self._tell([template, dict(tokens)])
        if self._answer(START_S) is None:
            raise _refusal("the process that renders it doesn't start")

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What the template makes of ``messages``.

        Raises:
            ModelError: it is damaged, doesn't take them, or needs too much time, memory or text.
        """
        self._tell([dict(message) for message in messages])
        answer = self._answer(RENDER_S)
        if answer is None:
            raise _refusal(f"it takes more than {RENDER_S:.0f} s, or more memory than {MOST_BYTES // 10**9} GB")
        if "error" in answer:
            raise _refusal(answer["error"])
        return answer["text"]

    def _tell(self, value: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and won't answer
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()

    def _answer(self, patience_s: float) -> dict[str, str] | None:
        """What it says; None where it ended before, or was ended for its slowness."""
        assert self._process.stdout is not None
        clock = threading.Timer(patience_s, self._process.kill)
        clock.start()
        try:
            line = self._process.stdout.readline()
        finally:
            clock.cancel()
        answer: dict[str, str] | None = json.loads(line) if line.endswith("\n") else None
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()


def _refusal(reason: str) -> ModelError:
    return ModelError(f"The model's chat template can't be used: {reason}.", "Leave out --chat, or use another model.")


def _serve() -> None:
    """The process itself: reads the template and its tokens, then one conversation after the other."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template, tokens = json.loads(sys.stdin.readline())
    _bound()
    _say({})
    for line in sys.stdin:
        try:
            rendered, _ = render_jinja_template(
                [json.loads(line)], chat_template=template, add_generation_prompt=True, **tokens
            )
            long = len(rendered[0]) > MOST_CHARACTERS
            _say({"error": f"it writes over {MOST_CHARACTERS:,} characters"} if long else {"text": rendered[0]})
        except Exception as error:  # a template raises what it likes
            _say({"error": first_line(error)})


def _bound() -> None:
    try:
        import resource
    except ImportError:  # Windows: only the time is bounded, from outside
        return
    import psutil

    used = psutil.Process().memory_info().vms
    for kind, most in ((resource.RLIMIT_AS, used + MOST_BYTES), (resource.RLIMIT_CPU, MOST_CPU_S)):
        with contextlib.suppress(ValueError, OSError):  # a lower one is set
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
