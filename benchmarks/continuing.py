"""Compares ways to continue a base: `python benchmarks/continuing.py NOVEL`, SmolLM2-135M on a novel and documentation.

Each line changes one choice and trains on the same number of tokens, on one thread, with ptk's own model, loss,
optimizers, rates and rows; with --init the ways to begin from a base, for the same CPU time. "Domain" is the held-out
part of the text, "general" the English text that ships in the package: how much lower the first gets is the gain, how
much higher the second gets is what was forgotten, both in bits per byte. The documentation is the docstrings of the
installed torch, numpy, pandas and scipy, a document a module.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from ablation import Course, Variation, begin, learn
from learning import prepared

from pretrain_cli.evaluation.reading import read_general
from pretrain_cli.heap import keep_freed_memory
from pretrain_cli.quiet import quiet_libraries
from pretrain_cli.tokenizer.load import open_tokenizer
from pretrain_cli.training.step.loss import attach_loss

DOCUMENTED = ("torch", "numpy", "pandas", "scipy")
ROWS = 16
"""Rows that are scored of each text."""
VARIATIONS = (
    Variation("as it is"),
    Variation("rate 3e-5", ("train.learning_rate=3e-5",)),
    Variation("rate 2e-4", ("train.learning_rate=2e-4",)),
    Variation("rate 3e-4", ("train.learning_rate=3e-4",)),
    Variation("rate 1e-3", ("train.learning_rate=1e-3",)),
    Variation("linear to 0", ("train.schedule=linear", "train.min_learning_rate_ratio=0")),
    Variation("constant", ("train.schedule=constant",)),
    Variation("wsd", ("train.schedule=wsd",)),
    Variation("warm-up of 8 steps", ("train.warmup_steps=8",)),
    Variation("batches of 2 048", ("train.batch_tokens=2048",)),
    Variation("muon, matrices 1e-3", ("train.optimizer=muon", "train.matrix_learning_rate=1e-3")),
    Variation("no weight decay", ("train.weight_decay=0",)),
)
INITS = (
    Variation("base"),
    Variation("depth-up, 45 layers", ("model.init=depth-up",)),
    Variation("drop-layers, 15 layers", ("model.init=drop-layers",)),
    Variation("random, rate 1e-4", ("model.init=random",)),
    Variation("random, rate 1e-3", ("model.init=random", "train.learning_rate=1e-3")),
)


def write_documentation(path: Path, megabytes: float = 3.0) -> None:
    """Docstrings of installed packages, each module a jsonl record, until there are so many bytes."""
    left = megabytes * 1e6
    with path.open("w", encoding="utf-8") as out:
        for name in DOCUMENTED:
            found = importlib.util.find_spec(name)
            if found is None or found.origin is None:
                continue
            share = left / (len(DOCUMENTED) - DOCUMENTED.index(name))
            for file in sorted(Path(found.origin).parent.rglob("*.py")):
                text = "\n\n".join(docstrings(file.read_text("utf-8", errors="ignore")))
                if len(text) > 500 and share > 0:
                    out.write(json.dumps({"text": text}) + "\n")
                    share, left = share - len(text), left - len(text)


def docstrings(source: str) -> list[str]:
    """Of a module, its classes and functions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return [text for text in texts if text and len(text) > 80]


def general_rows(course: Course) -> tuple[torch.Tensor, float]:
    """(ids [ROWS, L] of the packaged reference text, its tokens a byte)."""
    text = "\n\n".join("".join(document.parts) for document in read_general())
    ids = open_tokenizer(course.context.rows.tokenizer.file).encode(text, add_special_tokens=False).ids
    length = course.context.rows.sequence_length
    rows = np.array(ids[: len(ids) // length * length]).reshape(-1, length)
    chosen = rows[np.linspace(0, len(rows) - 1, ROWS).astype(int)]
    return torch.from_numpy(chosen).long(), len(ids) / len(text.encode())


@torch.inference_mode()
def bits_per_byte(course: Course, ids: torch.Tensor, tokens_per_byte: float) -> float:
    """Of rows, each alone, with the loss that the model is trained with."""
    total = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=course.context.machine.precision == "bf16"):
        for row in ids.split(4):
            total += float(course.model(input_ids=row, labels=row)["loss"]) * len(row)
    return total / len(ids) / math.log(2) * tokens_per_byte


def held_out_rows(course: Course) -> tuple[torch.Tensor, float]:
    """(ids [ROWS, L] of the domain, its tokens a byte)."""
    rows, per_byte = course.context.rows.validation, course.context.rows.validation_tokens_per_byte
    assert rows is not None and per_byte is not None
    chosen = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
    return torch.from_numpy(rows.rows.gather(list(chosen)).astype(np.int64)), per_byte


def score(course: Course) -> tuple[float, float]:
    """Bits per byte of the domain and of the general text."""
    detach = attach_loss(course.model, True, 0.0)
    found = bits_per_byte(course, *held_out_rows(course)), bits_per_byte(course, *general_rows(course))
    detach()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("novel", type=Path)
    parser.add_argument("--tokens", type=int, default=24_576, help="that each line trains on")
    parser.add_argument("--init", action="store_true", help="compare ways to begin, for --seconds of CPU time each")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", nargs="+", default=[], help="variations whose name holds one of these")
    parser.add_argument("--domain", choices=("novel", "documentation"), default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as spare:
        documentation = Path(spare) / "documentation.jsonl"
        write_documentation(documentation)
        for name, text in (("novel", given.novel.resolve()), ("documentation", documentation)):
            if given.domain in (None, name):
                folder = prepared(text, Path(spare) / name, "--base", "smollm2", "--preset", "continue")
                table(name, folder, given)


def table(name: str, folder: Path, given: argparse.Namespace) -> None:
    print(f"| {name} | steps | domain | gain | general | forgotten |\n| --- | --- | --- | --- | --- | --- |")
    tokens, seconds = (math.inf, given.seconds) if given.init else (given.tokens, math.inf)
    domain, general = score(begin(folder, Variation("base"), 0, {}, base="smollm2", preset="continue"))
    print(f"| before | | {domain:.4f} | | {general:.4f} | |", flush=True)
    for variation in INITS if given.init else VARIATIONS:
        if not given.only or any(word in variation.name for word in given.only):
            course = begin(folder, variation, 0, {}, base="smollm2", preset="continue")
            learn(course, seconds, tokens)
            after, later = score(course)
            print(f"| {variation.name} | {course.steps} | {after:.4f} | {domain - after:.4f} | {later:.4f} | "
                  f"{later - general:+.4f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
