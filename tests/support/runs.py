"""Prepares and trains small runs in this process, listens to them, cuts them off and compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pretrain_cli.artifacts import Artifacts, RunFolder
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.progress import Progress
from pretrain_cli.run_record import RunRecord, read_run_record
from pretrain_cli.storage import file_hash, read_lines

torch.set_num_threads(1)

SMALL: dict[str, Any] = {
    "model__size": "tiny",
    "model__layers": 1,
    "train__device": "cpu",
    "train__precision": "fp32",
    "train__threads": 1,
    "train__workers": 0,
    "train__micro_batch": 4,
    "train__gradient_accumulation": 1,
    "tracking__report_to": "none",
}
CLOCKS = ("elapsed_s", "tokens_per_second", "mfu", "matmul_share", "memory_mb")


class Heard(Progress):
    """Keeps what a run says; ``at_step`` runs after the step of its key."""

    def __init__(self, **at_step: Any) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.logged: list[dict[str, float]] = []
        self.states: dict[str, str] = {}
        self.at_step = {int(name.removeprefix("step_")): action for name, action in at_step.items()}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def status(self, name: str, text: str, said: bool = False) -> None:
        self.states[name] = text

    def log(self, step: int, values: Any) -> None:
        self.logged.append(dict(values))

    def advance(self, completed: float, **facts: float | str) -> None:
        if action := self.at_step.pop(int(completed), None):
            action()


def small(**values: Any) -> Config:
    """The small config with other values: ``small(train__max_steps=3)``."""
    return changed(Config(), **{**SMALL, **values})


def prepare_text(folder: Path, text: str, **values: Any) -> Artifacts:
    """Rows of 32 tokens from ``text``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    artifacts = Artifacts(folder / "artifacts")
    settings = {
        "data__inputs": [str(folder / "text.txt")],
        "data__sequence_length": 32,
        "data__document_separator": "\n\n" if "\n\n" in text else "",
        "data__workers": 1,
        "tokenizer__vocab_size": 400,
        "tokenizer__engine": "tokenizers",
        **values,
    }
    prepare(changed(Config(), **settings), artifacts)
    return artifacts


class PowerCut(Exception):
    """Ends a run between two steps, as a kill would."""


def cut() -> None:
    raise PowerCut


def course(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in read_lines(run.metrics)]


def weights_equal(one: RunFolder, other: RunFolder) -> bool:
    first, second = (load_file(run.model / "model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def record_of(run: RunFolder) -> RunRecord:
    """run.json, which has to be there."""
    record = read_run_record(run)
    assert record is not None
    return record


def hashes(folder: Path) -> dict[str, list[object]]:
    """What a checkpoint's manifest says of the files as they are, whether they can be read or not."""
    files = sorted(entry for entry in folder.rglob("*") if entry.is_file())
    return {str(entry.relative_to(folder)): [entry.stat().st_size, file_hash(entry)] for entry in files}
