"""Weighs padding against cut documents by what a model learns: `python benchmarks/fill.py sotu.jsonl [--steps 200]`

TEXT is jsonl with long documents. Four kinds of documents are cut out of it, between words:

    short    50 to 300 tokens, all lengths alike often
    narrow   130 to 250 tokens: no two fit a row of 256
    mixed    half of the tokens in short documents, half in documents of 500 to 5,000 tokens
    long     as they are

Each is packed in rows of several lengths, whole (best-fit) and joined and cut (concat), and trains the same model for
the same number of steps of the same number of places, padding included: a step costs the same, what is learned in it
doesn't. All models of one kind are scored on the same held-out documents, with 256 tokens of context.

    full    share of the places that hold text
    cut     documents that would fit in a row and are in several
    bits    per byte of the held-out documents, by seed; lower is better
    ms      processor time of a step, of all cores
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.result import PrepareResult
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.evaluation.run import evaluate
from pretrain_cli.training.run import train

HELD_OUT_EACH, CONTEXT, SCORED_BYTES = 40, 256, 100_000
KINDS: dict[str, Callable[[random.Random], int]] = {
    "short": lambda draw: draw.randint(50, 300),
    "narrow": lambda draw: draw.randint(130, 250),
    "mixed": lambda draw: draw.randint(500, 5000) if draw.random() < 0.06 else draw.randint(50, 300),
    "long": lambda draw: 10**9,
}
ROWS = ("best-fit-256", "best-fit-512", "best-fit-1024", "concat-256")


def pack(text: Path, folder: Path, tokenizer: str = "", **data: object) -> PrepareResult:
    """The text's rows."""
    made = {"path": tokenizer} if tokenizer else {"vocab_size": 2048}
    return prepare(
        Config.model_validate({"data": {"inputs": [str(text)], **data}, "tokenizer": made}), Artifacts(folder)
    )


def cut(text: str, tokenizer: Any, length: Callable[[random.Random], int], draw: random.Random) -> Iterator[str]:
    """Documents of about ``length`` tokens; the last may be shorter."""
    offsets = tokenizer.encode(text).offsets
    at = 0
    while at < len(offsets):
        stop = min(len(offsets), at + length(draw))
        while stop < len(offsets) and not text[offsets[stop][0]].isspace():
            stop += 1
        yield text[offsets[at][0] : offsets[stop - 1][1]]
        at = stop


def write_kind(source: Path, folder: Path, kind: str, tokenizer: Any) -> tuple[Path, Path]:
    """(documents to train on, held-out documents)."""
    draw = random.Random(0)
    paths = folder / f"{kind}.jsonl", folder / f"{kind}-held-out.jsonl"
    with open(paths[0], "w", encoding="utf-8") as train, open(paths[1], "w", encoding="utf-8") as held:
        for number, line in enumerate(source.read_text("utf-8").splitlines()):
            for document in cut(json.loads(line)["text"], tokenizer, KINDS[kind], draw):
                (held if number % HELD_OUT_EACH == 0 else train).write(json.dumps({"text": document}) + "\n")
    return paths


def share_cut(artifacts: Artifacts, length: int) -> float:
    """Documents that would fit in a row and are in several."""
    rows = open_rows(artifacts.train_rows)
    documents = rows.column("piece_documents")
    pieces, tokens = np.bincount(documents), np.bincount(documents, rows.column("piece_lengths"))
    fits = (tokens <= length) & (pieces > 0)
    return float((pieces > 1)[fits].sum() / max(1, fits.sum()))


def learn(artifacts: Artifacts, held: Path, steps: int, batch: int, seed: int) -> tuple[float, float]:
    """(bits per byte of the held-out documents, processor milliseconds of a step)."""
    training = {"max_steps": steps, "batch_tokens": batch, "compile": False, "seed": seed, "device": "cpu"}
    scoring = {"on": [str(held)], "context": CONTEXT, "stride": CONTEXT, "samples": 0, "sample": SCORED_BYTES}
    config = Config.model_validate({"model": {"size": "micro"}, "train": training, "evaluate": scoring})
    before = time.process_time()
    run = train(config, artifacts).run
    cpu = time.process_time() - before
    return evaluate(config, artifacts, models=[run]).models[0].texts[0].bits_per_byte, 1000 * cpu / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="packing and length, such as concat-512")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack(options.text, folder / "first")
        file = folder / "first" / "tokenizer" / "tokenizer.json"
        print("| documents | packing | row | full | cut | bits | ms |\n| --- | --- | ---: | ---: | ---: | --- | ---: |")
        for kind in options.kinds:
            train_on, held = write_kind(options.text, folder, kind, Tokenizer.from_file(str(file)))
            for packing, length in ((name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in options.rows):
                artifacts = Artifacts(folder / f"{kind}-{packing}-{length}")
                made = pack(train_on, artifacts.root, str(file.parent), packing=packing, sequence_length=length,
                            validation_fraction=0.0)  # fmt: skip
                found = [learn(artifacts, held, options.steps, options.batch_tokens, each) for each in options.seeds]
                bits, ms = ", ".join(f"{value:.3f}" for value, _ in found), min(each for _, each in found)
                print(f"| {kind} | {packing} | {length} | {made.fill:.1%} | {share_cut(artifacts, length):.0%} | "
                      f"{bits} | {ms:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
