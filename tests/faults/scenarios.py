"""The commands that the sweep disturbs: where each starts from, and what must be there in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pretrain_cli.manifest import INPUT_LIST
from tests.support.runs import CLOCKS

Words = Sequence[str]
FOREIGN = "A file that ptk didn't write.\n"
PREPARE = ("--set", "data.sequence_length=32", "--set", "data.workers=1", "--set", "tokenizer.engine=tokenizers")
TRAIN = (
    *("--size", "tiny", "--set", "model.layers=1", "--set", "train.micro_batch=4", "--device", "cpu", "--workers", "0"),
    *("--set", "train.gradient_accumulation=1", "--set", "train.threads=1", "--set", "train.save_steps=2"),
    *("--set", "train.keep=1", "--set", "train.logging_steps=1", "--precision", "fp32"),
    *("--set", "tracking.report_to=none"),
)
EVALUATE = ("--set", "evaluate.sample=2000", "--set", "evaluate.device=cpu", "--set", "evaluate.precision=fp32")
UNSTEADY = {".png", ".html", ".md", ".toml"}
"""Ends of names whose files hold times or places: they have to be there."""


@dataclass(frozen=True)
class Scenario:
    """A command, and how it is repeated.

    Attributes:
        name: for people.
        before: commands that make what it starts from.
        command: that is disturbed.
        again: what a person types after it failed, given the artifact folder.
        foreign: files, by folder, that a person has put there before.
        gone: whether a repeated command may say that what it is about isn't there.
    """

    name: str
    before: tuple[Words, ...]
    command: Words
    again: Callable[[Path], Words] | None = None
    foreign: tuple[str, ...] = ()
    gone: bool = False

    def repeated(self, root: Path) -> Words:
        """The command to type after a failed one."""
        return self.again(root) if self.again else self.command


def write_texts(folder: Path) -> Path:
    """Texts, a tokenizer and a model to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    prose = (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")
    (folder / "one.txt").write_text(prose[:6000], encoding="utf-8")
    (folder / "two.jsonl").write_text(
        "".join(json.dumps({"text": part}) + "\n" for part in prose[6000:12000].split("\n\n"))
    )
    return folder


def scenarios(texts: Path, root: Path, base: Path) -> list[Scenario]:
    """Every command that writes.

    Args:
        texts: as `write_texts` makes them.
        root: the artifact folder.
        base: a model's folder.
    """
    at = ("--artifacts", str(root))
    one = ("prepare", str(texts / "one.txt"), *at, *PREPARE, "--set", "tokenizer.vocab_size=300")
    two = (
        "prepare",
        str(texts / "one.txt"),
        str(texts / "two.jsonl"),
        *at,
        *PREPARE,
        "--set",
        "tokenizer.vocab_size=320",
    )
    start = ("train", "--run", "a", *at, *TRAIN, "--max-steps", "4")
    short = ("train", "--run", "a", *at, *TRAIN, "--max-steps", "2")
    resume = ("train", "--resume", "a", *at)
    further = (*resume, "--max-steps", "5")
    second = ("train", "--run", "b", *short[3:])
    shard = (*one, "--shard", "0/1")
    gguf = ("export", str(base), *at, "--to", "gguf")
    converted = str(root / "exports" / f"{base.name}-gguf" / f"{base.name}-f16.gguf")
    published = ("notes.txt", "data/notes.txt", "data/train/notes.txt", "tokenizer/notes.txt")

    def continued(folder: Path) -> Words:
        begun = (folder / "runs" / "a" / "run.json").is_file() or (folder / "runs" / "a" / "model").exists()
        return resume if begun else start

    return [
        Scenario("prepare", (), one, foreign=("notes.txt",)),
        Scenario("prepare --base FOLDER", (), (*one[:-2], "--base", str(base))),
        Scenario("prepare --base FILE.gguf", (gguf,), (*one[:-2], "--base", converted)),
        Scenario("prepare (over older rows)", (one,), two, foreign=published),
        Scenario("prepare --shard", (), shard),
        Scenario("prepare --merge", (shard,), (*one, "--merge")),
        Scenario("train", (one,), start, continued, foreign=("runs/notes.txt",)),
        Scenario("train --resume", (one, short), further, foreign=("runs/a/notes.txt", "runs/a/model/notes.txt")),
        Scenario(
            "train --find-learning-rate", (one,), ("train", "--find-learning-rate", *at, *TRAIN, "--max-steps", "4")
        ),
        Scenario("evaluate", (one, short), ("evaluate", *at, *EVALUATE), foreign=("runs/a/notes.txt",)),
        Scenario("export", (one, short), ("export", "a", *at), foreign=("exports/notes.txt",)),
        Scenario("export (over an older one)", (one, short, ("export", "a", *at), further), ("export", "a", *at)),
        Scenario(
            "export --to gguf",
            (one, short),
            ("export", "a", *at, "--to", "gguf"),
            foreign=("exports/a-gguf/notes.txt",),
        ),
        Scenario("runs compare", (one, short, second), ("runs", "compare", "a", "b", *at)),
        Scenario("runs remove", (one, short, second), ("runs", "remove", "b", "--yes", *at), gone=True),
    ]


def put_foreign(scenario: Scenario, root: Path) -> None:
    """A person's own files, where ptk works."""
    for name in scenario.foreign:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(FOREIGN)


def outcome(root: Path) -> dict[str, str]:
    """Path in the artifact folder → what its file says, without times; every folder too."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name in (".lock", ".lock.json"):
            continue
        found[name] = "folder" if path.is_dir() else _content(path)
    return found


def _content(path: Path) -> str:
    if path.suffix in UNSTEADY:
        return "file" if path.stat().st_size else "empty"
    try:
        if path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            return json.dumps([{key: value for key, value in line.items() if key not in CLOCKS} for line in lines])
        if path.suffix == ".json" and path.name not in ("tokenizer.json",):
            return json.dumps(_without_times(path.name, json.loads(path.read_text("utf-8"))), sort_keys=True)
    except ValueError:
        return "damaged"
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


TIMES = {
    "xxh3",  # of the other values
    "inputs_hashed_ns",
    "inputs_stamp",  # empty while a file is too young to be known by its time
    "checksum",
    "seconds",
    "elapsed_s",
    "began_s",
    "at",
    "started",
    "ended",
    "tokens_per_second",
    "stepping_s",
    "memory_mb",
    "commit",
}
ABOUT_THE_START = {"notes", "warnings", "resumes", "command", "peak_memory_bytes", "choices", "plan", "checkpoint_step"}


def _without_times(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(name, each) for each in value]
    if not isinstance(value, dict):
        return value
    if name == "trainer_state.json":
        return value["global_step"]
    if name == "manifest.json" and "step" in value:  # of a checkpoint: the files themselves are compared
        kept = {key: each for key, each in value.items() if key not in TIMES}
        return {**kept, "files": sorted(value["files"])}
    if name == "manifest.json" and isinstance(value.get("files"), dict):  # the list of inputs has times in it
        value = {**value, "files": {key: each for key, each in value["files"].items() if key != INPUT_LIST}}
    left_out = TIMES | ABOUT_THE_START | ({"files"} if name == "run.json" else set())  # those have times in them
    return {key: _without_times(name, each) for key, each in value.items() if key not in left_out}


def copy_start(start: Path, root: Path) -> None:
    """Put the artifact folder back to what a command starts from."""
    shutil.rmtree(root, ignore_errors=True)
    if start.is_dir():
        shutil.copytree(start, root)
