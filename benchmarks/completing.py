"""Times a whole Tab in bash, by the table and by typer in turns, and the help.

python benchmarks/completing.py [ROUNDS]     needs bash and `ptk` beside this Python
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PTK = Path(sys.executable).with_name("ptk")
LINES = {
    "ptk tr": ["ptk", "tr"],
    "ptk train --learn": ["ptk", "train", "--learn"],
    "ptk train --set train.learning": ["ptk", "train", "--set", "train.learning"],
    "ptk evaluate run-01 (of 100 runs)": ["ptk", "evaluate", "run-01"],
}
BY_TYPER = "from pretrain_cli.cli.app import main; main()"


def seconds(command: list[str], folder: Path) -> float:
    """How long a process takes from start to end."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def tab(program: str, script: Path, words: list[str]) -> list[str]:
    """What bash does at a Tab: its function calls the program, and takes the answer apart."""
    typed = " ".join(f"'{word}'" for word in words)
    steps = f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _ptk_completion {program}"
    return ["bash", "--norc", "--noprofile", "-c", f'{steps}; test "${{#COMPREPLY[@]}}" -gt 0']


def main(rounds: int) -> None:
    """Print the median of each, in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(100):
            run = folder / "artifacts" / "runs" / f"run-{number:03d}"
            (run / "checkpoints" / "step-000100").mkdir(parents=True)
            (run / "run.json").write_text("{}")
        script, slow = folder / "ptk.bash", folder / "by-typer"
        asked = {**os.environ, "_PTK_COMPLETE": "source_bash"}
        script.write_text(subprocess.run([PTK], env=asked, capture_output=True, text=True, check=True).stdout)
        slow.write_text(f"#!{sys.executable}\n{BY_TYPER}\n")
        slow.chmod(0o755)
        print("| a Tab after | by the table | by typer |\n| --- | --- | --- |")
        for line, words in LINES.items():
            pairs = [
                [seconds(tab(str(program), script, words), folder) for program in (PTK, slow)] for _ in range(rounds)
            ]
            fast, typers = (median(column) * 1000 for column in zip(*pairs, strict=True))
            print(f"| `{line}` | {fast:.0f} ms | {typers:.0f} ms |")
        for options in (["--version"], ["--help"], ["train", "--help"]):
            taken = median(seconds([str(PTK), *options], folder) for _ in range(rounds)) * 1000
            print(f"`ptk {' '.join(options)}`: {taken:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
