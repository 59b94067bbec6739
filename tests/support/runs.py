"""What a run's record says, for tests of runs that have one."""

from __future__ import annotations

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.run_record import RunRecord, read_run_record


def record_of(run: RunFolder) -> RunRecord:
    """run.json, which has to be there."""
    record = read_run_record(run)
    assert record is not None
    return record
