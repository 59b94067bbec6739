"""Each command, disturbed at a sample of its calls, loses nothing: `tests.faults.sweep` takes every call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.injection import compiled, compiler, environment
from tests.faults.sweep import KINDS, points
from tests.support.faults import sampled

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
SAMPLE = 5
"""Points of each command; a train and its resume take three seconds, the others one."""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield compiled(tmp_path_factory.mktemp("shim"))


def disturbed(shim: Path, program: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program whose calls about ``folder`` the shim counts."""
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True, text=True, env={**environment(shim), "PTK_FAULT_FOLDER": str(folder), **variables},
    )  # fmt: skip


WRITES = """
import os, sys
os.chdir(sys.argv[1])
print(os.write(os.open("a", os.O_WRONLY | os.O_CREAT), b"12345678"))
"""


def test_calls_are_logged_and_one_of_them_fails(shim: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "watched", tmp_path / "log"
    folder.mkdir()
    assert disturbed(shim, WRITES, folder, PTK_FAULT_LOG=str(log)).stdout == "8\n"
    assert log.read_text().splitlines() == ["1 open /a", "2 write /a"]
    full = disturbed(shim, WRITES, folder, PTK_FAULT_AT="2", PTK_FAULT_ACTION="ENOSPC")
    assert "No space left on device" in full.stderr
    assert disturbed(shim, WRITES, folder, PTK_FAULT_AT="2", PTK_FAULT_ACTION="short").stdout == "4\n"
    (folder / "a").unlink()
    assert disturbed(shim, WRITES, folder, PTK_FAULT_AT="2", PTK_FAULT_ACTION="kill").returncode == -9
    assert (folder / "a").read_text() == "1234"
    assert disturbed(shim, WRITES, folder, PTK_FAULT_AT="3", PTK_FAULT_ACTION="kill").returncode == 0


def test_of_many_writes_to_a_file_three_are_points() -> None:
    calls = [("open", "/a"), *[("write", "/a")] * 9, ("fsync", "/a")]
    assert sorted({point.fault.at for point in points(calls)}) == [1, 2, 6, 10, 11]
    every = {fault.name for faults in KINDS.values() for fault in faults}
    assert {point.fault.name for point in points(calls)} == every


@pytest.mark.slow
def test_after_a_fault_at_any_call_a_repeated_command_gives_the_undisturbed_result(tmp_path: Path) -> None:
    findings, table = sampled("sweep", SAMPLE, tmp_path)
    assert not [finding for finding in findings if finding["wrong"]], table
    assert len({finding["command"] for finding in findings}) == 15
    assert {finding["fault"] for finding in findings} == {fault.name for each in KINDS.values() for fault in each}
