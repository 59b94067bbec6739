"""What every test stands on: one torch thread each, and asserts that explain themselves in tests/support too."""

from __future__ import annotations

import os
import tempfile

import pytest

# Before torch is imported: more threads than cores make small models tens of times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is compiled here is no memory of the user's.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/ptk-tests-compiled")
pytest.register_assert_rewrite("tests.support")
# Windows has no SIGHUP, which this file names at its top.
collect_ignore = ["training/test_resume.py"] if os.name == "nt" else []
