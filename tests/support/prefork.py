"""Runs `ptk` commands as processes that are forked from one that has imported torch and transformers already.

Those imports take longer than most commands do. A forked command is a process of its own, with its own folder, files,
memory and exit; what differs is that nothing is imported. Tests of that and of signals start Python anew, and so does a
command whose variables libraries read when they are imported.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LONGEST = 1 << 20
READ_LATE = ("PTK_", "PYTEST_", "WANDB_")
"""How the variables begin that nothing reads while it is imported."""
works = hasattr(os, "fork") and sys.platform == "linux"
_forking: list[Forking] = []


class Forking:
    """A process that forks one command at a time; it ends with the one that made it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        code = f"from tests.support.prefork import serve; serve({theirs.fileno()})"
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, env=environment, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self.socket = ours

    def run(
        self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """A command's exit code as `subprocess` tells it, and what it wrote to stdout and stderr."""
        meant = {"folder": str(folder), "arguments": arguments, "environment": dict(environment)}
        with open(os.devnull) as none, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            files = [none.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self.socket, [json.dumps(meant).encode()], files)
            if not select.select([self.socket], [], [], timeout)[0]:
                self.process.kill()
                raise subprocess.TimeoutExpired(["ptk", *arguments], timeout)
            code = json.loads(self.socket.recv(LONGEST))
            for file in (out, err):
                file.seek(0)
            return code, _as_text(out.read()), _as_text(err.read())

    def end(self) -> None:
        self.socket.close()
        self.process.wait()


def run_command(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str], stdin: str = "", timeout: float = 600
) -> tuple[int, str, str]:
    """One command: forked, or started where it has to be."""
    if works and not stdin and (not _forking or _lasting(environment) == _lasting(_forking[0].environment)):
        if not _forking:
            _forking.append(Forking(dict(environment)))
            atexit.register(_forking[0].end)
        return _forking[0].run(folder, arguments, environment, timeout)
    done = subprocess.run(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=folder, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def _lasting(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(READ_LATE)}


def _as_text(content: bytes) -> str:
    return content.decode().replace("\r\n", "\n")


def import_everything() -> None:
    """Import what commands do, so that a fork of this process starts at once; nothing that starts a thread."""
    import accelerate
    import datasets
    import matplotlib.figure
    import peft
    import torch._dynamo
    import transformers.models.auto.tokenization_auto
    import transformers.models.llama.modeling_llama
    import transformers.trainer

    import pretrain_cli.cli.commands
    import pretrain_cli.data.prepare
    import pretrain_cli.evaluation.run
    import pretrain_cli.exporting.run
    import pretrain_cli.generation.engines.torch_engine
    import pretrain_cli.training.run

    assert accelerate and datasets and matplotlib and peft and torch and transformers
    pretrain_cli.cli.commands.make_app()
    gc.collect()
    gc.freeze()


def serve(descriptor: int) -> None:
    """Fork a command for each call that comes, until nobody is there to call."""
    import_everything()
    calls = socket.socket(fileno=descriptor)
    while True:
        call, files, _, _ = socket.recv_fds(calls, LONGEST, 3)
        if not call:
            return
        if (child := os.fork()) == 0:
            break
        for file in files:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):
            calls.send(json.dumps(status).encode())
    calls.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    meant = json.loads(call)
    os.chdir(meant["folder"])
    sys.path[0] = meant["folder"]
    sys.argv = ["ptk", *meant["arguments"]]
    os.environ.clear()
    os.environ.update(meant["environment"])
    from pretrain_cli.__main__ import main

    main()
