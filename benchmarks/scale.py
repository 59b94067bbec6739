"""Measures how seconds and memory of `ptk prepare` grow with documents, files and bytes.

    python benchmarks/scale.py documents 100000 1000000      short documents, in jsonl files
    python benchmarks/scale.py files 1000 20000 200000       small text files
    python benchmarks/scale.py document 100000000            one document of so many bytes
    python benchmarks/scale.py steps 30                      30 MB through all cleaning steps
    python benchmarks/scale.py near 100000                   near duplicates: memory, and pairs beside brute force

Each line is a whole process, its start-up and imports included: seconds on the clock, seconds of the processor (which
others on the machine don't change), and the most memory that it and its children held together. Documents are drawn
from the demo text: about 0.9 kB each, no two alike. With `--tokenizer FILE` that tokenizer is used; otherwise one of
4,096 entries is trained on the demo text first.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil

WORDS = (resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8").split()
STEPS = (
    *("newlines", "control", "nfc", "min-length", "personal-data", "ftfy", "language:en"),
    *("gopher-quality", "gopher-repetition", "fineweb", "c4"),
)


@dataclass(frozen=True)
class Taken:
    """What a process took."""

    seconds: float
    cpu_s: float
    megabytes: float
    output: dict[str, object]


def run(folder: Path, *arguments: str) -> Taken:
    """`ptk prepare` as a process of its own, watched ten times a second."""
    command = [sys.executable, "-m", "pretrain_cli", "prepare", *arguments, "--artifacts", str(folder), "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    most, cpu = [0.0], [0.0]

    def watch() -> None:
        while process.poll() is None:
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                most[0] = max(most[0], sum(each.memory_info().rss for each in family) / 1e6)
                times = [each.cpu_times() for each in family]
                cpu[0] = max(cpu[0], sum(each.user + each.system for each in times))
            except psutil.Error:
                pass
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{err[-2000:]}")
    return Taken(time.perf_counter() - began, cpu[0], most[0], json.loads(out))


def text(draw: random.Random, characters: int) -> str:
    """About so many characters, unlike any other."""
    at = draw.randrange(len(WORDS) - characters // 4)
    return f"{draw.getrandbits(48):x} {' '.join(WORDS[at : at + characters // 4])}"[:characters]


def write_documents(folder: Path, many: int) -> None:
    """Documents of 0.3 to 1.5 kB in jsonl files of 100,000."""
    draw = random.Random(many)
    for first in range(0, many, 100_000):
        with open(folder / f"{first:09d}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(min(100_000, many - first)):
                file.write(json.dumps({"text": text(draw, draw.randrange(300, 1500))}) + "\n")


def write_files(folder: Path, many: int) -> None:
    """Files of 520 bytes, a thousand in a folder."""
    draw = random.Random(many)
    for number in range(many):
        place = folder / f"{number // 1000:05d}"
        if number % 1000 == 0:
            place.mkdir()
        (place / f"{number:07d}.txt").write_text(text(draw, 520))


def write_document(folder: Path, size: int) -> None:
    """One text file."""
    draw = random.Random(size)
    with open(folder / "large.txt", "w", encoding="utf-8") as file:
        for _ in range(size // 1000):
            file.write(text(draw, 998) + ".\n")


def grow(what: str, sizes: list[int], write: Callable[[Path, int], None], more: list[str], tokenizer: Path) -> None:
    """A line for each size: prepared, and looked at again."""
    print(f"| {what} | MB | seconds | CPU s | memory MB | manifest kB | rows full | again: seconds | CPU s |")
    print("| ---: " * 9 + "|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            source, out = Path(name) / "in", Path(name) / "out"
            source.mkdir()
            write(source, size)
            stored = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) / 1e6
            time.sleep(2.5)  # files that are too new are read again
            first = run(out, str(source), "--tokenizer", str(tokenizer), *more)
            again = run(out, str(source), "--tokenizer", str(tokenizer), *more)
            assert again.output["reused"], "nothing had changed"
            manifest = (out / "data" / "manifest.json").stat().st_size / 1e3
            print(
                f"| {size:,} | {stored:.0f} | {first.seconds:.1f} | {first.cpu_s:.1f} | {first.megabytes:.0f} | "
                f"{manifest:.0f} | {float(str(first.output['fill'])):.1%} | {again.seconds:.1f} | {again.cpu_s:.1f} |",
                flush=True,
            )


def steps(megabytes: int, tokenizer: Path) -> None:
    """MB of text that one core takes through each cleaning step in a second, by processor time."""
    print("| step | MB/s a core |\n| --- | ---: |")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "in"
        source.mkdir()
        write_documents(source, int(megabytes * 1e6 / 900))
        cleaning = ("--set", f"data.cleaning={json.dumps(STEPS)}")
        speeds = run(Path(name) / "out", str(source), "--tokenizer", str(tokenizer), *cleaning).output["cleaning_speed"]
        assert isinstance(speeds, dict)
        for step, speed in speeds.items():
            print(f"| {step} | {speed:.0f} |", flush=True)


def train_tokenizer(folder: Path) -> Path:
    demo = folder / "demo.txt"
    demo.write_text((resources.files("pretrain_cli.texts") / "demo.txt").read_text("utf-8"), "utf-8")
    run(folder / "demo", str(demo), "--vocab-size", "4096")
    return folder / "demo" / "tokenizer" / "tokenizer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["documents", "files", "document", "steps", "near"])
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--tokenizer", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tokenizer = options.tokenizer or train_tokenizer(Path(name))
        if options.what == "steps":
            steps(options.sizes[0], tokenizer)
        else:
            write = {"files": write_files, "document": write_document}.get(options.what, write_documents)
            more = ["--set", "data.near_dedup=true"] if options.what == "near" else []
            grow(options.what, options.sizes, write, more, tokenizer)


if __name__ == "__main__":
    main()
