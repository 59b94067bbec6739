"""Measures how long prepare takes for texts without spaces. `python benchmarks/long_words.py [--limit SECONDS]`

Each input is prepared in a process of its own, start-up included, with a tokenizer trained on it; memory is the most
that the process held. With `PYTHONPATH` set to another checkout it measures that one. Texts are drawn with seed 0, the
Chinese one from 3,000 characters by Zipf's law with exponent 1.3. A run that takes longer than the limit is ended.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import psutil

CHINESE = [chr(0x4E00 + number) for number in range(3000)]
WEIGHTS = list(accumulate((number + 1) ** -1.3 for number in range(3000)))


def draw(alphabet: str, size: int) -> str:
    return "".join(random.Random(0).choices(alphabet, k=size))


TEXTS = {
    "20,000 x 'a'": lambda: "a" * 20_000,
    "200,000 x 'a'": lambda: "a" * 200_000,
    "150,000 x '='": lambda: "=" * 150_000,
    "1 MB of 'a'": lambda: "a" * 1_000_000,
    "10 MB of DNA": lambda: draw("ACGT", 10_000_000),
    "10 MB of Chinese": lambda: "".join(random.Random(0).choices(CHINESE, cum_weights=WEIGHTS, k=3_333_333)),
}


def measure(file: Path, folder: Path, limit: float) -> str:
    """Seconds and memory of one prepare, as cells of a table."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "pretrain_cli", "prepare", str(file), "--artifacts", str(folder), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    handle = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, handle.memory_info().rss)
        except psutil.Error:
            break
        if time.perf_counter() - started > limit:
            process.kill()
            process.wait()
            return f"over {limit:.0f} | {peak / 1e6:,.0f} MB"
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    return f"{seconds:.1f} | {peak / 1e6:,.0f} MB" + (f" (exit status {process.returncode})" if process.wait() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a run is ended")
    parser.add_argument("--only", default="", help="only inputs whose name holds this")
    arguments = parser.parse_args()
    print("| text | seconds | memory |\n| --- | --- | --- |", flush=True)
    for name, make in TEXTS.items():
        if arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "text.txt"
            file.write_text("The first line.\n" + make(), encoding="utf-8")
            print(f"| {name} | {measure(file, Path(place) / 'artifacts', arguments.limit)} |", flush=True)


if __name__ == "__main__":
    main()
