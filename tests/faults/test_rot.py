"""Damaged files of an artifact folder are noticed, or leave a result as it is: `tests.faults.rot` takes every file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.injection import compiler
from tests.faults.rot import Verdict
from tests.support.faults import sampled

SAMPLE = 5
"""Files and damages of each command."""


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")
def test_a_damaged_file_is_noticed_by_the_command_that_reads_it(tmp_path: Path) -> None:
    verdicts = [Verdict(**verdict) for verdict in sampled("rot", SAMPLE, tmp_path)[0]]
    assert len({verdict.reader for verdict in verdicts}) == 10
    assert not [each for each in verdicts if each.verdict.startswith(("silent", "FAULT"))]
