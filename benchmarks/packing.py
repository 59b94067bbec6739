"""Compares packings by what a model learns from them: `python benchmarks/packing.py sotu.jsonl [--train-steps 150]`

TEXT is jsonl. It is taken as it is (long documents), and cut at sentences into documents of 20 to some thousand
characters (short ones, log-normal, the median 800). Of each packing's rows:

    fill      share of the places that hold tokens
    dropped   tokens in no row
    cut       documents that would fit in a row and are in several
    context   tokens of its own document that a token has before it in its row, the mean

With --train-steps each packing also trains the same model on the short documents, for the same number of steps, and is
scored on the same held-out documents.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.data.rows.reader import open_rows
from pretrain_cli.manifest import read_manifest

PACKINGS = ("best-fit", "concat")


def short_documents(text: Path, out: Path) -> Path:
    """The same sentences as documents of their own, some sentences each."""
    draw = random.Random(0)
    with open(out, "w", encoding="utf-8") as file:
        for line in text.read_text(encoding="utf-8").splitlines():
            held, wanted = "", draw.lognormvariate(6.7, 1.0)
            for sentence in re.split(r"(?<=[.!?]) ", json.loads(line)["text"]):
                held += f"{sentence} "
                if len(held) > wanted:
                    file.write(json.dumps({"text": held}) + "\n")
                    held, wanted = "", draw.lognormvariate(6.7, 1.0)
            file.write(json.dumps({"text": held or "."}) + "\n")
    return out


def pack(text: Path, tokenizer: Path, packing: str, length: int, artifacts: Artifacts) -> float:
    """Prepare; the seconds it took."""
    data = {"inputs": [str(text)], "sequence_length": length, "packing": packing}
    started = time.perf_counter()
    prepare(Config.model_validate({"data": data, "tokenizer": {"path": str(tokenizer)}}), artifacts)
    return time.perf_counter() - started


def show_rows(name: str, length: int, packing: str, artifacts: Artifacts, seconds: float) -> None:
    ledger, rows = read_manifest(artifacts).ledger.tokens, open_rows(artifacts.train_rows)
    sizes = rows.column("piece_lengths").astype(np.int64)
    documents = rows.column("piece_documents")
    tokens = np.bincount(documents, sizes).astype(np.int64)
    pieces = np.bincount(documents)
    fits = (tokens <= length) & (pieces > 0)
    cut = (pieces > 1)[fits].sum() / max(1, fits.sum())
    fill = sizes.sum() / (len(rows) * length)
    context = (sizes * (sizes - 1) // 2).sum() / sizes.sum()
    dropped = sum(ledger.dropped.get(f"{split}_tail", 0) for split in ("train", "validation"))
    print(f"| {name} | {length} | {packing} | {fill:.2%} | {dropped} | {cut:.1%} | {context:.0f} | {seconds:.2f} s |")


def learn(packing: str, mask: bool, seed: int, steps: int, artifacts: Artifacts) -> float:
    """Bits per byte on the held-out documents after ``steps`` steps of 8 rows of 256."""
    run = f"{packing}-{mask}-{seed}"
    chosen = {"train.mask_documents": str(mask).lower(), "model.size": "tiny", "train.batch_tokens": 2048,
              "train.max_steps": steps, "train.seed": seed, "train.compile": "false"}  # fmt: skip
    common = ["--artifacts", str(artifacts.root), "--json"]
    settings = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "pretrain_cli"]
    subprocess.run([*command, "train", "--run", run, *settings, *common], check=True, capture_output=True)
    scored = subprocess.run([*command, "evaluate", run, *common], check=True, capture_output=True, text=True)
    return float(json.loads(scored.stdout)["models"][0]["texts"][0]["bits_per_byte"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 2048])
    parser.add_argument("--train-steps", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(Config.model_validate({"data": {"inputs": [str(options.text)]}}), Artifacts(folder / "first"))
        tokenizer = folder / "first" / "tokenizer"
        texts = {"long": options.text, "short": short_documents(options.text, folder / "short.jsonl")}
        print("| documents | length | packing | fill | dropped | cut | context | whole prepare |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for kind, text in texts.items():
            for length in options.lengths:
                for packing in PACKINGS:
                    artifacts = Artifacts(folder / f"{kind}-{length}-{packing}")
                    show_rows(kind, length, packing, artifacts, pack(text, tokenizer, packing, length, artifacts))
        if not options.train_steps:
            return
        print("\n| packing | documents see each other | bits per byte, by seed |\n| --- | --- | --- |")
        for packing, mask in (("best-fit", True), ("best-fit", False), ("concat", False)):
            artifacts = Artifacts(folder / f"short-{options.lengths[0]}-{packing}")
            bits = [learn(packing, mask, seed, options.train_steps, artifacts) for seed in options.seeds]
            print(f"| {packing} | {'no' if mask else 'yes'} | {', '.join(f'{value:.4f}' for value in bits)} |")


if __name__ == "__main__":
    main()
