"""Compares a student with teachers to the same student without: `python benchmarks/distilling.py TEXT --bytes 1000000`.

Teachers of one size, each with its own seed, are trained for as many passes over the text as given; then students of
that size and of a smaller one, with one teacher, with all, and with none. Runs are counted in passes, so that other
work on the machine changes nothing but the seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from learning import ptk

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.run_record import TrainResult
from pretrain_cli.training.run import train


def run(artifacts: Artifacts, name: str, size: str, passes: float, seed: int, *teachers: str) -> TrainResult:
    """Train one model to the end of ``passes``."""
    settings = [
        f"model.size={size}", f"train.epochs={passes}", f"train.seed={seed}", "tracking.report_to=none",
        "train.eval_rows=100000", "train.save_steps=0", "train.eval_steps=0", f"train.teacher={','.join(teachers)}",
    ]  # fmt: skip
    return train(load_config(assignments=settings, environ={}).config, artifacts, run_name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of the text's beginning")
    parser.add_argument("--size", default="tiny", help="of the teachers, and of the first students")
    parser.add_argument("--smaller", default="micro", help="of the other students")
    parser.add_argument("--teachers", type=int, default=4)
    parser.add_argument("--passes", type=float, nargs="+", default=[3, 6], help="the first are the teachers' too")
    given = parser.parse_args()
    keep_freed_memory()
    quiet_libraries()
    print("| model | teachers | passes | bits per byte | seconds |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as spare:
        text, artifacts = Path(spare) / "text.txt", Artifacts(Path(spare) / "artifacts")
        text.write_bytes(given.text.read_bytes()[: given.bytes])
        ptk("prepare", str(text), "--artifacts", str(artifacts.root))

        def row(name: str, size: str, passes: float, seed: int, *teachers: str) -> None:
            began = time.monotonic()
            bits = run(artifacts, name, size, passes, seed, *teachers).validation_bits_per_byte
            cells = (f"{bits:.4f}", f"{time.monotonic() - began:.0f}")
            print(f"| {size} | {len(teachers) or 'none'} | {passes:g} | {' | '.join(cells)} |", flush=True)

        names = [f"teacher-{place}" for place in range(1, given.teachers + 1)]
        for seed, name in enumerate(names, start=1):
            row(name, given.size, given.passes[0], seed)
        for size in dict.fromkeys((given.size, given.smaller)):
            for passes in given.passes:
                for count in (0, 1, len(names)):
                    row(f"{size}-{passes:g}-{count}", size, passes, 0, *names[:count])


if __name__ == "__main__":
    main()
