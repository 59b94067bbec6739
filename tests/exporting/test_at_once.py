"""Several exports to one folder at once: each is complete, and the last one stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain_cli.exporting import owned

PROGRAM = """
import sys
from pathlib import Path
from pretrain_cli.exporting.owned import move_in, publish
folder, name, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
for number in range(40):
    staging = folder.parent / f".{name}-{number}"
    staging.mkdir()
    for file in ("README.md", "Modelfile", "weights" if how == "publish" else f"{name}.gguf"):
        (staging / file).write_text(name * 1000)
    publish(staging, folder) if how == "publish" else move_in(staging, folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["publish", "move_in"])
def test_two_exports_to_one_folder_take_turns(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "exported"
    line = [sys.executable, "-c", PROGRAM, str(folder)]
    processes = [
        subprocess.Popen([*line, name, how], stderr=subprocess.PIPE, text=True, cwd=Path(owned.__file__).parents[2])
        for name in ("one", "two")
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    shared = ("README.md", "Modelfile", *(["weights"] if how == "publish" else []))
    assert len({(folder / name).read_text() for name in shared}) == 1
    owned.check_all_ours(folder)
    assert sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".gguf") == (
        ["one.gguf", "two.gguf"] if how == "move_in" else []
    )
