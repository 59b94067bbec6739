"""Damaged files of an artifact folder are noticed, or leave a result as it is: `tests.faults.rot` takes every file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import ROOT, compiler
from tests.faults.rot import VERIFIES, Verdict, may_be_silent

SAMPLE = 5
"""Files and damages of each command."""


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
@pytest.mark.skipif(not VERIFIES, reason="a model's files have no records yet")
def test_a_damaged_file_is_noticed_by_the_command_that_reads_it(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.rot", "--sample", str(SAMPLE), "--json", str(report)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    verdicts = [Verdict(**verdict) for verdict in json.loads(report.read_text())]
    assert len({verdict.reader for verdict in verdicts}) >= 9
    wrong = [each for each in verdicts if each.verdict == "silent" and not may_be_silent(each)]
    assert not [*wrong, *(each for each in verdicts if each.verdict.startswith("FAULT"))]
