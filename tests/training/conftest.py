"""Prepared rows for training tests, made by the real prepare, and a config that trains in a second."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.prepare import prepare
from pretrain_cli.progress import Progress

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
        "data__document_separator": "\n\n",
        "data__workers": 1,
        "tokenizer__vocab_size": 400,
        "tokenizer__engine": "tokenizers",
        **values,
    }
    prepare(changed(Config(), **settings), artifacts)
    return artifacts


@pytest.fixture(scope="session")
def prose() -> str:
    return (resources.files("pretrain_cli.texts") / "demo.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, prose: str) -> Artifacts:
    return prepare_text(tmp_path_factory.mktemp("prepared"), prose[:24_000])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, prepared: Artifacts) -> Artifacts:
    """Prepared rows of the file's own: its tests give their runs names that other files may use too."""
    root = tmp_path_factory.mktemp("rows") / "artifacts"
    shutil.copytree(prepared.root, root)
    return Artifacts(root)
