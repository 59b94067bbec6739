"""Runs the scripts of tests/faults on a sample, as their tests do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.injection import ROOT


def sampled(script: str, sample: int, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """(what ``tests.faults.<script>`` found in a sample, what it printed); it writes its report into ``folder``."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{script}", "--sample", str(sample), "--json", str(report)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(report.read_text()), done.stdout
