"""A command line in this process (`ptk`), and one as people have it (`ptk_process`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_cli.cli import app
from tests.support.commands import Outcome
from tests.support.prefork import run_command


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no PTK_ variables."""
    for name in [name for name in os.environ if name.startswith("PTK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ptk(empty: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process, in an empty folder."""

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = app.run(arguments)
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def ptk_process(empty: Path) -> Callable[..., Outcome]:
    """Run a command line as a process of its own, in an empty folder."""

    def run(*arguments: str, **variables: str) -> Outcome:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return Outcome(*run_command(Path.cwd(), arguments, environment))

    return run
