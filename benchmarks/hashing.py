"""Measures what hashing costs: prepare, and train with saves, in pairs with and without it.

    python benchmarks/hashing.py sotu.txt              # 100 MB prepared, and a run with four checkpoints
    python benchmarks/hashing.py sotu.txt --pairs 4

Without it, every hash is a constant, and nothing is read back to be hashed. Each command is a process of its own; the
two kinds take turns, the other one first in every second pair. A third process of each command counts the seconds that
are spent in hashing itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEGABYTES = 100
TRAIN = ("--size", "mini", "--max-steps", "24", "--set", "train.save_steps=6", "--set", "train.logging_steps=6")
KINDS = ("with", "without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        content = options.text.read_bytes()
        text.write_bytes((content * (MEGABYTES * 10**6 // len(content) + 1))[: MEGABYTES * 10**6])
        print("| command | with | without | difference, of the processor's time | spent in hashing |")
        print("| --- | --- | --- | --- | --- |")
        prepare = ("prepare", str(text), "--set", "data.sequence_length=256")
        show(f"`ptk prepare`, {MEGABYTES} MB", folder, prepare, options.pairs)
        small = folder / "small.txt"
        small.write_bytes(content[: 4 * 10**6])
        for kind in KINDS:  # a constant is no hash of what was written with one
            once(folder / f"kept-{kind}", ("prepare", str(small), "--set", "data.sequence_length=256"), kind)
        train = ("train", "--run", "a", "--device", "cpu", "--set", "tracking.report_to=none", *TRAIN)
        show("`ptk train`, four checkpoints and the model", folder, train, options.pairs, "kept-")


def show(title: str, folder: Path, command: tuple[str, ...], pairs: int, start: str = "") -> None:
    """One line of the table."""
    made: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for pair in range(pairs):
        for kind in KINDS if pair % 2 else reversed(KINDS):
            made[kind].append(fresh(folder, command, kind, start))
    counted = fresh(folder, command, "counted", start)
    with_, without = (statistics.median(each["seconds"] for each in made[kind]) for kind in KINDS)
    differences = ", ".join(f"{_difference(made, what):+.1%}" for what in ("seconds", "cpu"))
    spent = f"{counted['hashing']:.3f} s of {counted['seconds']:.1f}, {counted['hashing'] / counted['seconds']:.2%}"
    print(f"| {title} | {with_:.2f} s | {without:.2f} s | {differences} | {spent} |", flush=True)


def _difference(made: dict[str, list[dict[str, float]]], what: str) -> float:
    """The median of the pairs' differences, as a share."""
    both = zip(*(made[kind] for kind in KINDS), strict=True)
    return statistics.median((one[what] - other[what]) / other[what] for one, other in both)


def fresh(folder: Path, command: tuple[str, ...], kind: str, start: str) -> dict[str, float]:
    """One command in a new artifact folder, or in a copy of the one that ``start`` begins the name of."""
    root = folder / "artifacts"
    shutil.rmtree(root, ignore_errors=True)
    if start:
        shutil.copytree(folder / f"{start}{'without' if kind == 'without' else 'with'}", root)
    return once(root, command, kind)


def once(root: Path, command: tuple[str, ...], kind: str) -> dict[str, float]:
    """One command as a process; its seconds, the processor's, and those spent in hashing."""
    words = [sys.executable, __file__, "--as", kind, *command, "--artifacts", str(root), "--quiet"]
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
    seconds, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "cpu": cpu, "hashing": json.loads(done.stdout.splitlines()[-1])}


def run_as(kind: str, words: list[str]) -> None:
    """Run one command of ptk in this process; prints the seconds that were spent in hashing."""
    import pretrain_cli.records
    import pretrain_cli.sealing
    import pretrain_cli.storage
    import pretrain_cli.training.keeping.checkpoints
    from pretrain_cli.cli.app import run

    spent = [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments)
            spent[0] += time.perf_counter() - began
            return result

        return wrapper

    class Nothing:
        """A digest that looks at nothing."""

        def update(self, data: object) -> None:
            """Look at nothing."""

        def hexdigest(self) -> str:
            return "0" * 32

    users = (pretrain_cli.records, pretrain_cli.training.keeping.checkpoints)
    written: Any = pretrain_cli.storage.HashedFile
    if kind == "without":
        for user in users:
            vars(user)["file_hash"] = lambda path: "0" * 32
        written_init = written.__init__

        def unhashed(self: Any, path: Path) -> None:
            written_init(self, path)
            self._digest = Nothing()

        written.__init__ = unhashed
    if kind == "counted":
        for user in users:
            vars(user)["file_hash"] = timed(pretrain_cli.storage.file_hash)
        real = pretrain_cli.storage.xxhash.xxh3_128

        class Timed:
            """The real digest, timed."""

            def __init__(self) -> None:
                self._real = real()
                self.update = timed(self._real.update)
                self.hexdigest = self._real.hexdigest

        written_init = written.__init__

        def counted(self: Any, path: Path) -> None:
            written_init(self, path)
            self._digest = Timed()

        written.__init__ = counted
    status = run(words)
    print(spent[0], flush=True)
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        run_as(sys.argv[2], sys.argv[3:])
    else:
        main()
