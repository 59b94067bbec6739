"""Runs `ptk` as a process and checks how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.prefork import run_command

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
SMALL = ("--size", "tiny", "--set", "tracking.report_to=none", "--device", "cpu", "--workers", "0")


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error_lines(self) -> list[str]:
        """The lines on stderr from `Error:`, or `Stopped`, on."""
        lines = self.err.strip().splitlines()
        starts = [index for index, line in enumerate(lines) if line.startswith(("Error:", "Stopped"))]
        return lines[starts[0] :] if starts else []


def ptk(folder: Path, *arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command as a process of its own."""
    environment = {**ENVIRONMENT, **variables}
    if "PYTHONIOENCODING" not in variables:
        code, out, err = run_command(folder, arguments, environment, stdin or "")
        return subprocess.CompletedProcess(["ptk", *arguments], code, out, err)
    return subprocess.run(
        [sys.executable, "-m", "pretrain_cli", *arguments],
        cwd=folder, input=stdin or "", capture_output=True, text=True, timeout=600, env=environment,
        encoding=variables["PYTHONIOENCODING"],
    )  # fmt: skip


def ok(folder: Path, *arguments: str, **keywords: Any) -> dict[str, Any]:
    """One command that must succeed; its JSON object."""
    done = ptk(folder, *arguments, "--json", **keywords)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with ``code`` and two lines, no traceback, and names what the user needs."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-2].startswith("Error: ") and lines[-1].startswith("Hint: "), done.stderr
    for word in words:
        assert word in "\n".join(lines[-2:]), done.stderr
