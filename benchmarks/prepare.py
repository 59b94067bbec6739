"""How fast does text become packed rows, in how much memory, beside the peers? `python benchmarks/prepare.py TEXT`

Each line is a process of its own, its start-up and imports included. TEXT is repeated to the sizes given; TOKENIZER is
any tokenizer.json (without one, a byte-level BPE is trained on the text first). A peer that isn't installed is left
out: `pip install datatrove litdata` for those two. The last column tells whether all made the same number of tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH = 512


def repeat(text: Path, megabytes: int, folder: Path) -> Path:
    """A jsonl file of about ``megabytes`` MB: the text in documents of 40 000 characters, again and again."""
    path, content = folder / f"{megabytes}.jsonl", text.read_text(encoding="utf-8")
    documents = [content[start : start + 40_000] for start in range(0, len(content), 40_000)]
    with open(path, "w", encoding="utf-8") as out:
        size = number = 0
        while size < megabytes * 1e6:
            size += out.write(json.dumps({"text": f"{number}. {documents[number % len(documents)]}"}) + "\n")
            number += 1
    return path


def run_ptk(text: Path, tokenizer: Path, out: Path) -> int:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.model import Config
    from pretrain_cli.data.prepare import prepare

    data = {"inputs": [str(text)], "sequence_length": LENGTH}
    result = prepare(Config.model_validate({"data": data, "tokenizer": {"path": str(tokenizer)}}), Artifacts(out))
    print(f"fill {result.fill:.5f}, {result.megabytes_per_second:.1f} MB/s after imports, {result.tokenizer}")
    return result.tokens


def run_map(text: Path, tokenizer: Path, out: Path) -> int:
    """`datasets.map` twice, as transformers' run_clm example does: encode, then group into rows."""
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    encoder = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))
    rows = load_dataset("json", data_files=str(text), split="train", cache_dir=str(out / "cache"))
    encoded = rows.map(lambda batch: {"input_ids": encoder(batch["text"])["input_ids"]}, batched=True, num_proc=2,
                       remove_columns=["text"])  # fmt: skip

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        flat = [token for ids in batch["input_ids"] for token in ids]
        return {"input_ids": [flat[at : at + LENGTH] for at in range(0, len(flat) // LENGTH * LENGTH, LENGTH)]}

    return len(encoded.map(group, batched=True, num_proc=2)) * LENGTH


def run_datatrove(text: Path, tokenizer: Path, out: Path) -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps = [
        JsonlReader(str(text.parent), glob_pattern=text.name),
        DocumentTokenizer(str(out), tokenizer_name_or_path=str(tokenizer)),
    ]
    LocalPipelineExecutor(steps, tasks=1, logging_dir=str(out / "logs")).run()
    return sum(path.stat().st_size for path in out.glob("*.ds")) // 2


def run_litdata(text: Path, tokenizer: Path, out: Path) -> int:
    import numpy as np
    from litdata import optimize
    from litdata.streaming.item_loader import TokensLoader
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))

    def encode(line: str) -> Iterator[Any]:
        yield np.array(encoder.encode(json.loads(line)["text"], add_special_tokens=False).ids, np.uint32)

    lines = text.read_text(encoding="utf-8").splitlines()
    optimize(encode, lines, str(out), chunk_size=LENGTH * 4096, item_loader=TokensLoader(LENGTH), num_workers=2)
    index = json.loads((out / "index.json").read_text())
    return sum(int(chunk["dim"]) for chunk in index["chunks"])


RUNNERS = {"ptk": run_ptk, "datasets.map": run_map, "datatrove": run_datatrove, "litdata": run_litdata}


def measure(name: str, text: Path, tokenizer: Path, folder: Path) -> None:
    """One whole process: seconds, MB/s, peak memory of its largest process."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    before = time.perf_counter()
    command = [sys.executable, __file__, "--run", name, str(text), str(tokenizer), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - before
    if done.returncode:
        print(f"{name:<14}{text.stem:>6} MB   left out: {(done.stderr.strip().splitlines() or ['?'])[-1][:80]}")
        return
    *notes, last = done.stdout.strip().splitlines()
    tokens, memory = last.split()
    rate = text.stat().st_size / 1e6 / seconds
    note = notes[-1] if notes and name == "ptk" else ""
    figures = f"{seconds:>9.1f} s{rate:>9.1f} MB/s{float(memory):>9.0f} MB{int(tokens):>14,}"
    print(f"{name:<14}{text.stem:>6} MB{figures}  {note}")


def train(text: Path, folder: Path) -> Path:
    from pretrain_cli.tokenizer.train import train_tokenizer

    train_tokenizer([text.read_text(encoding="utf-8")[:10_000_000]], 4096, folder / "tokenizer")
    return folder / "tokenizer" / "tokenizer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("tokenizer", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--peers-at", type=int, default=100, help="size at which the peers run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = options.tokenizer or train(options.text, folder)
        print(f"{'':<14}{'text':>9}{'time':>11}{'rate':>14}{'memory':>12}{'tokens':>14}")
        for size in options.megabytes:
            text = repeat(options.text, size, folder)
            for runner in RUNNERS if size == options.peers_at else ["ptk"]:
                measure(runner, text, tokenizer, folder)
            text.unlink()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        made = RUNNERS[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
        usage = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(made, usage / 1e3)
    else:
        main()
