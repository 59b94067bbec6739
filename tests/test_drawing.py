"""Figures are drawn whatever a matplotlibrc says: the folder that is worked in may have one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
from pretrain_cli.errors import PtkError
from pretrain_cli.webpage import line_chart
try:
    print("<svg" in line_chart("a $x$", "step", {"loss": [(1, 2.0), (2, 1.0)]}))
except PtkError as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (b"text.usetex: True\nfont.size: 100000\nbackend: module://evil\n", "True"),
        (b"\xff\xfe\x00", "matplotlib can't be imported: "),
    ],
)
def test_settings_of_the_folder_change_no_figure_and_run_no_code(tmp_path: Path, settings: bytes, said: str) -> None:
    (tmp_path / "matplotlibrc").write_bytes(settings)
    (tmp_path / "evil.py").write_text("print('ran')")
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(said) and "ran" not in done.stdout, done.stderr
