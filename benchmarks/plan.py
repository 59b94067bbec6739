"""What `ptk plan` says against what training then takes on this machine: seconds a step, and memory at the peak.

    python benchmarks/plan.py [SIZE ...]

For each size: a plan by arithmetic alone, a plan with 20 s of real steps on random rows, then real training on real
rows for a minute. Prints a table; nothing else should run meanwhile.
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

SIZES = ("tiny", "small", "base")
SETTINGS = ("--set", "tracking.report_to=none", "--set", "train.save_steps=0", "--set", "train.eval_steps=0")
BATCH = {"tiny": "2048", "small": "4096", "base": "4096"}


def ptk(folder: Path, *words: str) -> dict[str, Any]:
    """A command's result."""
    line = [sys.executable, "-m", "pretrain_cli", *words, "--artifacts", str(folder), "--json", "--quiet"]
    return dict(json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout))


def trained(folder: Path, size: str, *words: str) -> tuple[float, float]:
    """(median seconds of a step, bytes at the peak) of a real training."""
    run = f"real-{size}"
    ptk(folder, "train", "--run", run, "--max-minutes", "1", *words)
    lines = [json.loads(line) for line in (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((folder / "runs" / run / "run.json").read_text())
    tokens = record["plan"]["batch_tokens"]
    return statistics.median(tokens / line["tokens_per_second"] for line in lines[2:] or lines[-1:]), record[
        "peak_memory_bytes"
    ]


COLUMNS = ("size", "parameters", "step: plan", "trained", "off", "peak: arithmetic", "off", "plan", "off", "trained")


def main() -> None:
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder, text = Path(name) / "artifacts", Path(name) / "text.txt"
        text.write_text((resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8"), "utf-8")
        ptk(folder, "prepare", str(text), "--vocab-size", "4096")
        for size in sys.argv[1:] or list(SIZES):
            print("| " + " | ".join(row(folder, size)) + " |", flush=True)


def row(folder: Path, size: str) -> list[str]:
    """One size, planned and trained."""
    words = ("--size", size, "--batch-tokens", BATCH.get(size, "4096"))
    plan = ptk(folder, "plan", "--max-minutes", "1", *words)
    step, peak = trained(folder, size, *words, *SETTINGS)
    arithmetic, measured = plan["memory"]["peak"], plan["measured_peak_bytes"]
    return [
        size,
        f"{plan['parameters'] / 1e6:.1f}M",
        f"{plan['step_seconds'] * 1000:.0f} ms",
        f"{step * 1000:.0f} ms",
        f"{plan['step_seconds'] / step - 1:+.1%}",
        f"{arithmetic / 1e6:.0f} MB",
        f"{arithmetic / peak - 1:+.1%}",
        f"{measured / 1e6:.0f} MB",
        f"{measured / peak - 1:+.1%}",
        f"{peak / 1e6:.0f} MB",
    ]


if __name__ == "__main__":
    main()
