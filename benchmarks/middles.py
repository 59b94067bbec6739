"""What a small code model learns with and without moved middles: `python benchmarks/middles.py --steps 1000`.

The text is Python's own standard library (without its tests), from scratch. Both models have the same tokenizer, text,
size and steps; one learns from text of which `data.fim_rate` is rearranged. Every twentieth file is kept apart. Single
lines of those are the middles: each is scored after the text before it alone, and with the text after it in view.

    left to right   bits per byte of the held-out ends of the training files, in reading order
    after prefix    bits per byte of the lines, after the text before them
    both sides      the same, with the text after them given first (the model with moved middles only)
    right           lines written greedily to the letter, with both sides where the model can, else after prefix
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from learning import ptk
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from pretrain_cli.tokenizer.middles import MiddleTokens, find_middle_tokens

KEPT_APART = 20
"""Every so many files one is kept for the middles."""
BEFORE, AFTER = 120, 60
"""Tokens of the text around a middle that the models see."""
SHORTEST, LONGEST = 8, 60
"""Characters of a line that is a middle."""


@dataclass(frozen=True)
class Line:
    """A line of a file, and what is before and after it."""

    before: str
    text: str
    after: str


def library() -> list[Path]:
    """The standard library's files that are text to learn from, in order."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__", "encodings"}
    return sorted(path for path in root.rglob("*.py") if not left_out & set(path.relative_to(root).parts))


def lines_of(files: list[Path], count: int) -> list[Line]:
    """``count`` lines, drawn evenly."""
    found = []
    for file in files:
        text = file.read_text("utf-8")
        at = 0
        for line in text.splitlines(keepends=True):
            if SHORTEST <= len(line.strip()) <= LONGEST and at > 400:
                end = at + len(line.rstrip("\n"))
                found.append(Line(text[max(0, at - 2000) : at], text[at:end], text[end : end + 1000]))
            at += len(line)
    return random.Random(0).sample(found, min(count, len(found)))


@dataclass(frozen=True)
class Judge:
    """A trained model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    tokens: MiddleTokens | None
    first: int
    end: int

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, line: Line, both: bool) -> list[int]:
        before = self.ids(line.before)[-BEFORE:]
        if not both:
            return [self.first, *before]
        assert self.tokens is not None
        return [self.first, *self.tokens.arranged(before, [], self.ids(line.after)[:AFTER], suffix_first=False)]

    @torch.no_grad()
    def bits(self, line: Line, both: bool) -> float:
        """Of the line's text."""
        prompt, text = self.prompt(line, both), self.ids(line.text)
        logits = self.model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(text), reduction="sum")) / math.log(2)

    @torch.no_grad()
    def writes(self, line: Line, both: bool) -> bool:
        """Whether greedy writing gives the line."""
        prompt, made = self.prompt(line, both), list[int]()
        while line.text.startswith(written := self.tokenizer.decode(made)):
            made.append(int(self.model(torch.tensor([prompt + made])).logits[0, -1].argmax()))
            if made[-1] == self.end or len(made) > 2 * LONGEST:
                return written == line.text
        return written.startswith(f"{line.text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--size", default="micro")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--vocabulary", default="auto")
    parser.add_argument("--batch", default="auto", help="tokens of a step")
    parser.add_argument("--lines", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the artifacts; default: a temporary folder")
    asked = parser.parse_args()
    files = library()
    apart = files[::KEPT_APART]
    lines = lines_of(apart, asked.lines)
    with tempfile.TemporaryDirectory() as spare:
        root = asked.folder or Path(spare)
        text = root / "library.jsonl"
        text.write_text(
            "".join(json.dumps({"text": file.read_text("utf-8")}) + "\n" for file in files if file not in apart),
            "utf-8",
        )
        size = text.stat().st_size / 1e6
        print(f"{len(files) - len(apart)} files, {size:.1f} MB; {len(lines)} lines of {len(apart)} other files")
        print(
            f"{'':<14}{'seed':>5}{'tokens':>12}{'left to right':>15}{'after prefix':>14}{'both sides':>12}{'right':>8}"
        )
        shared = ["--sequence-length", str(asked.length), "--artifacts"]
        own = ["--vocab-size", asked.vocabulary, "--set", f"data.fim_rate={asked.rate}"]
        ptk("prepare", str(text), *own, *shared, str(root / "moved"))
        tokenizer = root / "moved" / "tokenizer" / "tokenizer.json"
        ptk("prepare", str(text), "--tokenizer", str(tokenizer), *shared, str(root / "plain"))
        for seed in range(asked.seeds):
            for name in ("plain", "moved"):
                measure(root / name, name, seed, lines, asked)


def measure(folder: Path, name: str, seed: int, lines: list[Line], asked: argparse.Namespace) -> None:
    """Train one model, and print its figures."""
    words = ["--max-steps", str(asked.steps), "--size", asked.size, "--seed", str(seed), "--artifacts", str(folder)]
    for setting in (
        f"train.batch_tokens={asked.batch}",
        "train.save_steps=0",
        "train.eval_steps=0",
        "train.eval_rows=200",
        "train.compile=false",
    ):
        words += ["--set", setting]
    run = ptk("train", *words, "--set", "train.ensemble=0", "--set", "tracking.report_to=none")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(run["model"]).eval()
    judge = Judge(model, tokenizer, find_middle_tokens(tokenizer), 0, 1)
    size = sum(len(line.text.encode()) for line in lines)
    both = name == "moved"
    after = sum(judge.bits(line, False) for line in lines) / size
    sides = f"{sum(judge.bits(line, True) for line in lines) / size:>12.3f}" if both else f"{'':>12}"
    right = sum(judge.writes(line, both) for line in lines) / len(lines)
    print(
        f"{name:<14}{seed:>5}{run['tokens']:>12,}{run['validation_bits_per_byte']:>15.4f}{after:>14.3f}{sides}{right:>8.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
