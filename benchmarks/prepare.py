"""Measures how fast text becomes packed rows, in how much memory, beside the peers: `python benchmarks/prepare.py TEXT`

Each line is a process of its own, its start-up and imports included; memory is the most that it and its children held
together. TEXT is repeated to the sizes given, as jsonl in two files. The tokenizers are trained on TEXT first: a
byte-level BPE of 4 096 entries and a SentencePiece-style BPE of 32 000 with byte fallback, or give a tokenizer.json.
A peer that isn't installed is left out: `pip install datatrove litdata`. The last column tells whether a peer made the
same ids: how often it made each of them is compared with `ptk`'s, BOS and EOS left out; a tail it drops is told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

LENGTH = 512
MARKS = ("<|bos|>", "<|eos|>", "<|pad|>", "<unk>", "<s>", "</s>")


def repeat(text: Path, megabytes: int, folder: Path) -> Path:
    """Two jsonl files of about ``megabytes`` MB: the text in documents of 40 000 characters, again and again."""
    out, content = folder / f"{megabytes}", text.read_text(encoding="utf-8")
    documents = [content[start : start + 40_000] for start in range(0, len(content), 40_000)]
    out.mkdir()
    number = 0
    for part in range(2):
        with open(out / f"{part}.jsonl", "w", encoding="utf-8") as file:
            size = 0
            while size < megabytes * 1e6 / 2:
                size += file.write(json.dumps({"text": f"{number}. {documents[number % len(documents)]}"}) + "\n")
                number += 1
    return out


def run_ptk(text: Path, tokenizer: Path, out: Path) -> Iterator[Any]:
    from pretrain_cli.artifacts import Artifacts
    from pretrain_cli.config.model import Config
    from pretrain_cli.data.prepare import prepare
    from pretrain_cli.data.rows.reader import open_rows

    data = {"inputs": [str(text)], "sequence_length": LENGTH}
    result = prepare(Config.model_validate({"data": data, "tokenizer": {"path": str(tokenizer)}}), Artifacts(out))
    print(f"fill {result.fill:.5f}, {result.megabytes_per_second:.1f} MB/s after imports, {result.tokenizer}")
    return (
        rows.input_ids[start : start + 4096]
        for folder in (Artifacts(out).train_rows, Artifacts(out).validation_rows)
        for rows in [open_rows(folder)]
        for start in range(0, len(rows), 4096)
    )


def run_map(text: Path, tokenizer: Path, out: Path) -> Iterator[Any]:
    """`datasets.map` twice, as transformers' run_clm example does: encode, then group into rows."""
    from datasets import load_dataset
    from transformers import PreTrainedTokenizerFast

    encoder = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer))
    rows = load_dataset("json", data_files=f"{text}/*.jsonl", split="train", cache_dir=str(out / "cache"))
    encoded = rows.map(lambda batch: {"input_ids": encoder(batch["text"])["input_ids"]}, batched=True, num_proc=2,
                       remove_columns=["text"])  # fmt: skip

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        flat = [token for ids in batch["input_ids"] for token in ids]
        return {"input_ids": [flat[at : at + LENGTH] for at in range(0, len(flat) // LENGTH * LENGTH, LENGTH)]}

    grouped = encoded.map(group, batched=True, num_proc=2).with_format("numpy")
    return (batch["input_ids"] for batch in grouped.iter(1000))


def run_datatrove(text: Path, tokenizer: Path, out: Path) -> Iterator[Any]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    steps = [
        JsonlReader(str(text)),
        DocumentTokenizer(str(out), tokenizer_name_or_path=str(tokenizer), shuffle_documents=False),
    ]
    LocalPipelineExecutor(steps, tasks=2, workers=2, logging_dir=str(out / "logs")).run()
    return (np.fromfile(path, np.uint16) for path in sorted(out.glob("*.ds")))


def encode_line(encoder: Any, line: str) -> Iterator[Any]:
    yield np.array(encoder.encode(json.loads(line)["text"], add_special_tokens=False).ids, np.uint16)


def run_litdata(text: Path, tokenizer: Path, out: Path) -> Iterator[Any]:
    from functools import partial

    from litdata import StreamingDataset, optimize
    from litdata.streaming.item_loader import TokensLoader
    from tokenizers import Tokenizer

    encode = partial(encode_line, Tokenizer.from_file(str(tokenizer)))
    lines = [line for path in sorted(text.iterdir()) for line in path.read_text(encoding="utf-8").splitlines()]
    optimize(encode, lines, str(out), chunk_size=LENGTH * 4096, item_loader=TokensLoader(LENGTH), num_workers=2)
    rows = StreamingDataset(str(out), item_loader=TokensLoader(LENGTH))
    return (np.asarray(rows[index]) for index in range(len(rows)))


RUNNERS = {"ptk": run_ptk, "datasets.map": run_map, "datatrove": run_datatrove, "litdata": run_litdata}


def run_one(name: str, text: Path, tokenizer: Path, out: Path) -> None:
    """In the process that is timed; what comes after "done" only looks at what was made."""
    made = RUNNERS[name](text, tokenizer, out)
    (out.parent / "done").touch()
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    counts = np.zeros(len(vocabulary), np.int64)
    for ids in made:
        counts += np.bincount(np.asarray(ids).reshape(-1), minlength=len(counts))
    for mark in MARKS:
        counts[vocabulary.get(mark, 0)] = 0
    (out.parent / "counts.json").write_text(json.dumps(counts.tolist()))


def measure(name: str, text: Path, tokenizer: Path, folder: Path) -> tuple[float, list[int]] | None:
    """(seconds, how often each id was made) of one whole process; prints its line."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    before = time.perf_counter()
    command = [sys.executable, __file__, "--run", name, str(text), str(tokenizer), str(out)]
    quiet = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    done, peak = folder / "done", 0
    done.unlink(missing_ok=True)
    with open(folder / "output", "w") as output, open(folder / "errors", "w") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=quiet)
        while process.poll() is None and not done.exists():
            peak = max(peak, _memory(process.pid))
            time.sleep(0.01)
    seconds = time.perf_counter() - before
    process.wait()
    size = sum(path.stat().st_size for path in text.iterdir()) / 1e6
    if process.returncode:
        reason = ((folder / "errors").read_text().strip().splitlines() or ["?"])[-1]
        print(f"{name:<14}{text.name:>6} MB   left out: {reason[:80]}")
        return None
    note = (folder / "output").read_text().strip() if name == "ptk" else ""
    counts: list[int] = json.loads((folder / "counts.json").read_text())
    print(f"{name:<14}{text.name:>6} MB{seconds:>9.1f} s{size / seconds:>9.1f} MB/s{peak / 1e6:>9.0f} MB  ", end="")
    print(f"{sum(counts):>12,} tokens  {note}", end="")
    return seconds, counts


def _memory(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


def train_byte_level(text: str, folder: Path) -> Path:
    from pretrain_cli.tokenizer.train import train_tokenizer

    train_tokenizer([text], 4096, folder / "byte-level")
    return folder / "byte-level" / "tokenizer.json"


def train_sentencepiece_style(text: str, folder: Path) -> Path:
    """`▁` for a space, byte fallback, no pre-tokenizer: the shape of Llama 2's and TinySolar's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ascii_ = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=32_000, special_tokens=special, initial_alphabet=ascii_, show_progress=False
    )
    tokenizer.train_from_iterator(text.split("\n"), trainer)
    spec = json.loads(tokenizer.to_str())
    spec["pre_tokenizer"], spec["model"]["fuse_unk"] = None, True
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < 3]
    path = folder / "sentencepiece" / "tokenizer.json"
    path.parent.mkdir()
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


TRAINED = {"byte-level": train_byte_level, "sentencepiece": train_sentencepiece_style}


def compare(text: Path, tokenizer: Path, folder: Path, names: list[str]) -> None:
    """One size: a line for each, and how many times faster ptk is than the fastest with the same ids."""
    times: dict[str, float] = {}
    own: list[int] = []
    for name in names:
        measured = measure(name, text, tokenizer, folder)
        if measured is None:
            continue
        own = own or measured[1]
        missing = sum(own) - sum(measured[1])
        same = all(theirs <= ours for theirs, ours in zip(measured[1], own, strict=True)) and missing < sum(own) / 1000
        if same:
            times[name] = measured[0]
        print(
            ""
            if name == "ptk"
            else f"{'same' if same else 'other'} ids" + (f", {missing:,} dropped" if missing else "")
        )
    if len(times) > 1:
        best = min((seconds, name) for name, seconds in times.items() if name != "ptk")
        print(f"ptk is {best[0] / times['ptk']:.1f} times as fast as {best[1]}, the best that makes the same ids")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokenizer", nargs="+", default=list(TRAINED), help="byte-level, sentencepiece, or a file")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--peers-at", type=int, default=100, help="size at which the peers run")
    parser.add_argument("--peers", nargs="*", default=[name for name in RUNNERS if name != "ptk"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for chosen in options.tokenizer:
            made = TRAINED.get(chosen)
            tokenizer = made(options.text.read_text(encoding="utf-8"), folder) if made else Path(chosen)
            print(f"--- {chosen}: {len(json.loads(tokenizer.read_text())['model']['vocab'])} entries")
            for size in options.megabytes:
                text = repeat(options.text, size, folder)
                compare(text, tokenizer, folder, ["ptk", *(options.peers if size == options.peers_at else [])])
                shutil.rmtree(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
