"""What `ptk train` announces against what it does: steps of a timed run, seconds of a counted one.

    python benchmarks/forecast.py sotu.txt                     # every rung, native and AVX2, one and two threads
    python benchmarks/forecast.py sotu.txt --sizes auto mini --threads 2 --kinds native --minutes 0.75
    python benchmarks/forecast.py moby-dick.txt --base smollm2 --kinds native

Each line is a whole command in a process of its own. "Off" is how far what happened is from what was announced: more
steps, or more seconds, are +. "AVX2" is the same machine, told that it has AVX2 only. Nothing else should run on it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = {
    "native": {},
    "AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
COLUMNS = ("model", "machine", "threads", "announced", "made", "off", "corrected", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["auto", "micro", "tiny", "mini", "small"])
    parser.add_argument("--base", default="")
    parser.add_argument("--threads", nargs="+", default=["2", "1"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    words = ("--base", options.base) if options.base else ()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "artifacts"
        ptk({}, "prepare", str(options.text), *words, "--artifacts", str(folder))
        print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
        for size in ["base"] if options.base else options.sizes:
            for kind in options.kinds:
                for threads in options.threads:
                    chosen = () if size in ("base", "auto") else ("--size", size)
                    print(line(folder, options.base or size, kind, threads, options.minutes, *chosen), flush=True)


def line(folder: Path, name: str, kind: str, threads: str, minutes: float, *words: str) -> str:
    """A timed run."""
    run = f"{name}-{kind}-{threads}".lower()
    found = ptk(
        KINDS[kind],
        *("train", "--artifacts", str(folder), "--run", run, "--max-minutes", str(minutes), *words),
        *("--set", f"train.threads={threads}", "--set", "tracking.report_to=none"),
    )
    record = json.loads((folder / "runs" / run / "run.json").read_text("utf-8"))
    announced, made = record["plan"]["expected_steps"], found["steps"]
    corrected = "yes" if any(choice.startswith("corrected") for choice in record["choices"]) else "no"
    size = record["plan"].get("size")
    shown = f"{name} ({size})" if name == "auto" else name
    figures = (f"{announced:,}", f"{made:,}", f"{made / announced - 1:+.0%}", corrected, f"{found['seconds']:.0f}")
    return "| " + " | ".join((shown, kind, threads, *figures)) + " |"


def ptk(changes: dict[str, str], *words: str) -> dict[str, Any]:
    """One command, as typed; its JSON."""
    command = [sys.executable, "-m", "pretrain_cli", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, env={**os.environ, **changes})
    result: dict[str, Any] = json.loads(done.stdout or "{}")
    if done.returncode:
        raise SystemExit(f"ptk {' '.join(words)} failed: {result}")
    return result


if __name__ == "__main__":
    main()
