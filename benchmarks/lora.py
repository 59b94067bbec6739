"""Full training against LoRA, on a base and one text: `python benchmarks/lora.py TEXT`.

Each line is a real `ptk train` and `ptk evaluate`, in processes of their own: held-out bits per byte of the text and of
general English, both against the base; seconds of a step (the median) and the peak of memory. All cells of a table see
the same rows in the same order.

    tokens    the same steps of one row: full at its rate, LoRA at three ranks and three rates, QLoRA
    minutes   the same time: full, and LoRA as `auto` would take it
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from learning import ptk

CELLS: dict[str, list[tuple[str, int, float]]] = {
    "tokens": [
        ("full", 0, 1e-4),
        ("lora", 64, 1e-3),
        ("lora", 16, 1e-3),
        ("lora", 4, 1e-3),
        ("lora", 64, 5e-4),
        ("lora", 64, 2e-3),
        ("lora", 16, 5e-4),
        ("lora", 16, 2e-3),
        ("qlora", 64, 1e-3),
        ("full", 0, 3e-4),
    ],
    "minutes": [("full", 0, 1e-4), ("lora", 64, 1e-3)],
}
"""Method, rank, rate."""


def trained(folder: Path, name: str, cell: tuple[str, int, float], length: list[str]) -> dict[str, Any]:
    """One run; its result with the median seconds of a step."""
    method, rank, rate = cell
    words = ["train", "--run", name, "--artifacts", str(folder), "--method", method, "--learning-rate", str(rate)]
    words += ["--batch-tokens", "512", *length, *(["--set", f"train.lora_rank={rank}"] if rank else [])]
    words += ["--set", "train.eval_steps=0", "--set", "train.save_steps=0", "--set", "tracking.report_to=none"]
    words += ["--set", "train.compile=false"]
    result = ptk(*words)
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    speeds = [512 / line["tokens_per_second"] for line in lines[2:] if line.get("tokens_per_second")]
    result["step_seconds"] = statistics.median(speeds) if speeds else 0.0
    return result


def table(kind: str, folder: Path, length: list[str], sample: int) -> None:
    """Train each cell, then score it and the base on the same documents."""
    heads = ("rank", 5), ("rate", 8), ("text", 9), ("general", 9), ("gain", 8), ("lost", 8), ("steps", 7), ("a step", 9)
    print(f"{'':<10}" + "".join(f"{head:>{width}}" for head, width in (*heads, ("memory", 9))))
    base: dict[str, float] = {}
    for number, cell in enumerate(CELLS[kind]):
        name = f"{kind}-{number}"
        result = trained(folder, name, cell, length)
        words = ["--set", "evaluate.samples=0", "--set", f"evaluate.sample={sample}", "--artifacts", str(folder)]
        words += ["--set", f"evaluate.against_base={'false' if base else 'true'}"]
        scored = ptk("evaluate", name, *words)["models"]
        own = {text["name"]: text["bits_per_byte"] for text in scored[0]["texts"]}
        domain, general = sorted(own, key=lambda text: text == "general")[0], "general"
        if not base:
            base = {text["name"]: text["bits_per_byte"] for text in scored[1]["texts"]}
            print(f"{'base':<10}{'':>13}{base[domain]:>9.4f}{base[general]:>9.4f}")
        method, rank, rate = cell
        print(
            f"{method:<10}{rank or '':>5}{rate:>8.0e}{own[domain]:>9.4f}{own[general]:>9.4f}"
            f"{base[domain] - own[domain]:>8.4f}{own[general] - base[general]:>8.4f}{result['steps']:>7}"
            f"{result['step_seconds']:>7.2f} s{result['peak_memory_bytes'] / 1e9:>6.2f} GB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tables", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--sample", type=int, default=20_000, help="bytes of each text that are scored")
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--artifacts", type=Path, help="where to keep the runs; otherwise nothing is kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        folder = asked.artifacts or Path(spare)
        if not (folder / "data" / "manifest.json").is_file():
            ptk("prepare", str(asked.text), "--artifacts", str(folder), "--base", asked.base)
        for kind in asked.tables:
            length = ["--max-steps", str(asked.steps)] if kind == "tokens" else ["--max-minutes", str(asked.minutes)]
            print(f"\n{kind}: {' '.join(length)}")
            table(kind, folder, length, asked.sample)


if __name__ == "__main__":
    main()
