"""Compares batches and rates for a text that is read in a few dozen steps: `python benchmarks/small_texts.py TEXT`.

Parts of the text's beginning are prepared as `ptk prepare` does; each is learned for as many passes as the dial takes,
at some batches and rates. All are scored on the 200 kB that follow, since a twentieth of 50 kB says little.
Runs are counted in tokens, so that other work on the machine changes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ablation import Variation, begin, learn, score
from learning import ptk

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import load_config
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.manifest import read_manifest
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.training.choices.recipe import SHORT_TEXT_PASSES
from pretrain_cli.training.context import open_unrecorded

HELD_OUT_BYTES = 200_000


def prepared(content: bytes, size: int, spare: Path) -> Path:
    """The first ``size`` bytes as rows, and in "held-out" beside them those that follow."""
    folder = spare / str(size)
    for name, part in (("text", content[:size]), ("held-out", content[size : size + HELD_OUT_BYTES])):
        (spare / f"{name}.txt").write_bytes(part)
    ptk("prepare", str(spare / "text.txt"), "--artifacts", str(folder))
    ptk("prepare", str(spare / "held-out.txt"), "--artifacts", str(folder / "held-out"), "--tokenizer",
        str(folder / "tokenizer"), "--sequence-length", "256", "--validation-fraction", "0")  # fmt: skip
    return folder


def learned(folder: Path, batch: int, factor: float, passes: float, seed: int, others: list[str]) -> tuple[float, int]:
    """(bits per byte of the held-out part, steps)."""
    dial = begin(folder, Variation("dial"), seed, {}).context.plan
    rates: dict[str, Any] = {
        "learning_rate": dial.rates.main,
        "matrix_learning_rate": dial.rates.matrix,
        "embedding_learning_rate": dial.rates.embedding,
    }
    settings = (f"train.batch_tokens={batch}", *(f"train.{key}={factor}x" for key in rates), *others)
    course = begin(folder, Variation("changed", settings), seed, rates)
    learn(course, tokens=passes * len(course.context.rows.train) * course.context.rows.sequence_length)
    artifacts = Artifacts(folder / "held-out")
    held_out = open_unrecorded(load_config(environ={}).config, artifacts).rows
    per_byte = read_manifest(artifacts).train.tokens_per_byte
    scored = replace(course.context.rows, validation=held_out.train, validation_tokens_per_byte=per_byte)
    course.context = replace(course.context, rows=scored)
    return score(course), course.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000, 100_000, 200_000, 500_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--passes", type=float, nargs="+", default=[SHORT_TEXT_PASSES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="+", default=[], help="settings that all runs have, such as model.size=mini")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    quiet_libraries()
    print("| text | passes | batch | steps |" + "".join(f" {rate:g} × the rates |" for rate in given.rates))
    print("| --- " * (4 + len(given.rates)) + "|")
    with tempfile.TemporaryDirectory() as spare:
        for size in given.sizes:
            folder = prepared(given.text.read_bytes(), size, Path(spare))
            for passes in given.passes:
                for batch in given.batches:
                    cells = []
                    for rate in given.rates:
                        runs = [learned(folder, batch, rate, passes, seed, given.set) for seed in given.seeds]
                        cells.append(f" {statistics.median(bits for bits, _ in runs):.3f} |")
                    line = f"| {size / 1000:g} kB | {passes:g} | {batch} | {runs[0][1]} |"
                    print(line + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
