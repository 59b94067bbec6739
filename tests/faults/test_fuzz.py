"""Damaged files of every kind that ptk reads are read, or are an error for users: `tests.faults.fuzz` takes more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("trafilatura")
pytest.importorskip("gguf")
if sys.platform == "win32":
    pytest.skip("stops what hangs with a signal", allow_module_level=True)

from tests.faults.fuzz import fuzz, kinds

EXAMPLES = 40
"""Of each kind, always the same ones."""


@pytest.mark.slow
def test_a_damaged_file_of_any_kind_is_read_or_is_an_error_for_users(tmp_path: Path) -> None:
    wrong = []
    for kind in kinds():
        try:
            fuzz(kind, EXAMPLES)
        except AssertionError as error:
            wrong.append(f"{kind.name}: {error}")
    assert not wrong, "\n".join(wrong)
