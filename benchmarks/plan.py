"""What `ptk plan` says against what training then takes on this machine: seconds a step, and memory at the peak.

    python benchmarks/plan.py [--threads=N] [SIZE ...]

For each size, twice in turn, so that a machine that changes meanwhile changes for both: a plan with 20 s of real steps,
then a training of 25 s, without W&B, checkpoints and validations in between. Medians
of all steps; a plan by arithmetic alone gives its figure for the peak. All with one thread, unless another number is
named: two of them fall to a fraction of their speed while other work takes a core, and would measure that.
Prints a table. Takes two minutes a size.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

SIZES = ("tiny", "mini", "small")
ROUNDS = 2
TRAIN_MINUTES = 25 / 60
WARM_UP_STEPS = 2
BATCH = ("--batch-tokens", "2048")
QUIET = ("--set", "tracking.report_to=none", "--set", "train.save_steps=0", "--set", "train.eval_steps=0")
COLUMNS = ("size", "parameters", "step: plan", "trained", "off", "peak: arithmetic", "off", "plan", "off", "trained")


def main() -> None:
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder, text = Path(name) / "artifacts", Path(name) / "text.txt"
        text.write_text((resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8"), "utf-8")
        ptk(folder, "prepare", str(text), "--vocab-size", "4096")
        threads = next((word.split("=")[1] for word in sys.argv if word.startswith("--threads=")), "1")
        for size in [word for word in sys.argv[1:] if not word.startswith("-")] or SIZES:
            print("| " + " | ".join(row(folder, size, threads)) + " |", flush=True)


def row(folder: Path, size: str, threads: str) -> list[str]:
    """One size, planned and trained."""
    words = ("--size", size, *BATCH, "--set", f"train.threads={threads}")
    planned: list[float] = []
    trained: list[float] = []
    plan: dict[str, Any] = {}
    peaks: list[tuple[float, float]] = []
    for turn in range(ROUNDS):
        plan = ptk(folder, "plan", "--max-minutes", "1", *words)
        planned.append(plan["step_seconds"])
        steps, peak = train(folder, f"{size}-{turn}", *words, *QUIET)
        trained += steps
        peaks.append((plan["measured_peak_bytes"], peak))
    said, took = statistics.median(planned), statistics.median(trained)
    measured, peak = (statistics.median(values) for values in zip(*peaks, strict=True))
    arithmetic = plan["memory"]["peak"]
    return [
        size,
        f"{plan['parameters'] / 1e6:.1f}M",
        f"{said * 1000:.0f} ms",
        f"{took * 1000:.0f} ms",
        f"{said / took - 1:+.1%}",
        f"{arithmetic / 1e6:.0f} MB",
        f"{arithmetic / peak - 1:+.1%}",
        f"{measured / 1e6:.0f} MB",
        f"{measured / peak - 1:+.1%}",
        f"{peak / 1e6:.0f} MB",
    ]


def train(folder: Path, run: str, *words: str) -> tuple[list[float], float]:
    """(seconds of each step, bytes at the peak) of a real training."""
    ptk(folder, "train", "--run", run, "--max-minutes", str(TRAIN_MINUTES), *words)
    lines = [json.loads(line) for line in (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((folder / "runs" / run / "run.json").read_text())
    steps = [record["plan"]["batch_tokens"] / line["tokens_per_second"] for line in lines]
    return steps[WARM_UP_STEPS:] or steps[-1:], record["peak_memory_bytes"]


def ptk(folder: Path, *words: str) -> dict[str, Any]:
    """A command's result."""
    line = [sys.executable, "-m", "pretrain_cli", *words, "--artifacts", str(folder), "--json", "--quiet"]
    return dict(json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))


if __name__ == "__main__":
    main()
