"""Measures what a second training process brings, and where the rest goes.

    python benchmarks/scaling.py            two processes on this machine, measured
    python benchmarks/scaling.py --paper    1 to 1 024 accelerators, on paper

Measured: tokens a second of one process; of two that know nothing of each other (what sharing memory and caches
costs); of two that train together (what talking costs on top); and the time of the exchange alone. The four take
turns, and of all steps of a kind the lower quartile counts: other work on the machine makes steps slower, nothing makes
them faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from pretrain_cli.planning.accelerators import parse_machine
from pretrain_cli.planning.scaling import step_on

STEPS = 12
WARM_UP_STEPS = 2
SIZE = "mini"
BATCH = 1024
ROUNDS = 3
COMMON = (
    "--size", SIZE, "--precision", "fp32", "--set", "train.optimizer=adamw", "--set", "tracking.report_to=none",
    "--set", "train.save_steps=0", "--set", "train.eval_steps=0", "--set", "train.logging_steps=1",
)  # fmt: skip

# On paper: a Llama of 1.24 billion weights (16 layers of 2 048, 128 256 entries), rows of 4 096.
PARAMETERS, LAYERS, HIDDEN, LENGTH = 1.24e9, 16, 2048, 4096
GLOBAL_TOKENS = 4 << 20
MFU_ALONE = 0.45


def main() -> None:
    if "--paper" in sys.argv:
        paper()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "artifacts"
        text = Path(name) / "text.txt"
        text.write_text((resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8"), "utf-8")
        ptk(folder, "prepare", str(text), "--vocab-size", "4096").wait()
        kinds = {
            "alone": (1, BATCH, ()),
            "side by side": (2, BATCH, ()),
            "together": (1, 2 * BATCH, ("--processes", "2")),
            "one with two threads": (1, 2 * BATCH, ("--set", "train.threads=2")),
        }
        steps: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(ROUNDS):
            for kind, (count, batch, more) in kinds.items():
                names = tuple(f"{kind.replace(' ', '-')}-{turn}-{index}" for index in range(count))
                steps[kind] += run(folder, names, batch, *more)
        seconds = {kind: statistics.quantiles(values, n=4)[0] for kind, values in steps.items()}
        rates = {kind: count * batch / seconds[kind] for kind, (count, batch, _) in kinds.items()}
        report(rates, parameters(folder))


def ptk(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """A command, started; it computes with one thread where it isn't told otherwise."""
    line = [sys.executable, "-m", "pretrain_cli", *words, "--artifacts", str(folder), "--quiet"]
    return subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(folder: Path, names: tuple[str, ...], batch: int, *more: str) -> list[float]:
    """Seconds of the steps of runs at the same time, without the first ones."""
    words = (*COMMON, "--batch-tokens", str(batch), "--max-steps", str(STEPS), *more)
    started = [ptk(folder, "train", "--run", name, *words) for name in names]
    for process in started:
        assert process.wait() == 0
    seconds = []
    for name in names:
        lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        seconds += [batch / json.loads(line)["tokens_per_second"] for line in lines[WARM_UP_STEPS:]]
    return seconds


def parameters(folder: Path) -> int:
    return int(json.loads((folder / "runs" / "alone-0-0" / "run.json").read_text())["parameters"])


def report(rates: dict[str, float], weights: int) -> None:
    alone, apart, together = rates["alone"], rates["side by side"], rates["together"]
    exchange = exchange_seconds(weights)
    single, step_apart, step = BATCH / alone, 2 * BATCH / apart, 2 * BATCH / together
    print(f"{SIZE}, {weights / 1e6:.1f}M weights, {BATCH} tokens a process and step, fp32, AdamW\n")
    print("| processes | tokens/s | of twice one |\n| --- | --- | --- |")
    names = {
        "alone": "1",
        "side by side": "2 apart",
        "together": "2 together",
        "one with two threads": "1, two threads",
    }
    for name, text in names.items():
        print(f"| {text} | {rates[name]:.0f} | {rates[name] / 2 / alone:.0%} |")
    lost = step - step_apart
    print("\n| a step of two together | ms | share |\n| --- | --- | --- |")
    parts = {
        "computing, as one alone": single,
        "sharing memory and caches: two that know nothing of each other": step_apart - single,
        "communication: what training together adds": lost,
        "whole": step,
    }
    for text, seconds in parts.items():
        print(f"| {text} | {seconds * 1e3:.0f} | {seconds / step:.1%} |")
    hidden = max(0.0, exchange - lost)
    print(
        f"\nSumming {4 * weights / 1e6:.0f} MB of gradients by itself takes {exchange * 1e3:.0f} ms: "
        f"{hidden * 1e3:.0f} ms of it hide behind the backward pass, "
        f"{max(0.0, lost - exchange) * 1e3:.0f} ms beyond it go into waiting for the slower process and copying."
    )


def exchange_seconds(weights: int) -> float:
    """Median seconds of summing that many fp32 numbers over two gloo processes."""
    code = (
        "import statistics, time, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        f"bucket = torch.ones(min({weights}, 25_000_000 // 4)); times = []\n"
        "for _ in range(20):\n"
        "    dist.barrier(); began = time.perf_counter()\n"
        f"    for _ in range(max(1, round({weights} / bucket.numel()))): dist.all_reduce(bucket)\n"
        "    times.append(time.perf_counter() - began)\n"
        "print(statistics.median(times)) if dist.get_rank() == 0 else None\n"
        "dist.destroy_process_group()\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", script.name]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=env)
    return float(done.stdout.strip())


def paper() -> None:
    """A fixed batch of 4 M tokens a step, and a fixed batch on each accelerator, from data sheets alone."""
    per_token = 6 * PARAMETERS + 6 * LAYERS * HIDDEN * LENGTH
    print("| H100 | tokens/s | step | exchange | waits | efficiency | 20 G tokens | efficiency at 32 k tokens each |")
    print("| --- " * 8 + "|")
    for power in range(11):
        machine = parse_machine(f"h100x{2**power}")
        step = step_on(machine, per_token * GLOBAL_TOKENS, MFU_ALONE, PARAMETERS)
        weak = step_on(machine, per_token * 32_768 * machine.count, MFU_ALONE, PARAMETERS)
        rate = GLOBAL_TOKENS / step.seconds
        cells = (
            f"{machine.count}",
            f"{rate / 1e3:.0f} k",
            f"{step.seconds:.3f} s",
            f"{step.exchange * 1e3:.0f} ms",
            f"{step.exposed * 1e3:.1f} ms",
            f"{step.efficiency:.0%}",
            f"{20e9 / rate / 3600:.1f} h",
            f"{weak.efficiency:.0%}",
        )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
