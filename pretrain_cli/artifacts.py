"""Names everything in the artifact folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.errors import ModelError, UsageError

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LONGEST_NAME = 150
"""Characters of a page's name that lists runs."""
ROW_FILES = ("*.arrow", "state.json", "dataset_info.json")
TOKENIZER_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab.*", "merges.txt", "spiece.model", "sentencepiece*"),
)
MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "README.md"),
    *TOKENIZER_FILES,
)
"""Patterns of the files that ptk writes into the folders of rows, tokenizers and models."""
CHECKPOINT_NAME = re.compile(r"step-(\d{6,})")


def ollama_name(model: str) -> str:
    """What a model is called in Ollama, which takes no capitals and no @."""
    return model.replace("@", "-").lower()


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run, ``runs/<name>/``."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """config.toml: the whole resolved config."""
        return self.path / "config.toml"

    @property
    def record(self) -> Path:
        """run.json: command line, versions, data fingerprint, device, precision, start, end, status."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """samples.jsonl: what the model wrote during training."""
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """The steps that have a checkpoint folder, in ascending order. Staging folders have other names."""
        if not self.checkpoints.is_dir():
            return []
        matches = (CHECKPOINT_NAME.fullmatch(entry.name) for entry in self.checkpoints.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    @property
    def model(self) -> Path:
        """The finished model: weights, tokenizer, model card."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"


@dataclass(frozen=True)
class Artifacts:
    """The folder that all commands share. It has no state: every property is a path."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def train_rows(self) -> Path:
        return self.data / "train"

    @property
    def validation_rows(self) -> Path:
        return self.data / "validation"

    @property
    def manifest(self) -> Path:
        """data/manifest.json, which prepare writes last: if it exists, the data is complete."""
        return self.data / "manifest.json"

    @property
    def rejected(self) -> Path:
        """data/rejected.jsonl: the bad records that ``data.on_error = "skip"`` left out."""
        return self.data / "rejected.jsonl"

    @property
    def bases(self) -> Path:
        """Base models converted from other formats, one folder each; safe to delete."""
        return self.root / "bases"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def exports(self) -> Path:
        """Exported models, one folder each."""
        return self.root / "exports"

    def comparison(self, *names: str) -> Path:
        """The page that compares the runs of these names."""
        named = "--".join(names)
        few = named if len(named) <= LONGEST_NAME else f"{names[0]}--and-{len(names) - 1}-more"
        return self.root / "comparisons" / f"{few}.html"

    @property
    def latest(self) -> Path:
        return self.root / "latest"

    def run(self, name: str) -> RunFolder:
        """The folder of run ``name``, whether or not it exists.

        Raises:
            UsageError: the name isn't valid as a folder name on every system.
        """
        if not RUN_NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' is not a valid run name.",
                "Use up to 100 letters, digits, '.', '_' and '-'; start with a letter or digit.",
            )
        return RunFolder(self.runs / name)

    def run_names(self) -> list[str]:
        """The existing runs, oldest first."""
        if not self.runs.is_dir():
            return []
        folders = [entry for entry in self.runs.iterdir() if (entry / "run.json").is_file()]
        return [entry.name for entry in sorted(folders, key=lambda entry: (entry / "run.json").stat().st_ctime)]

    def latest_run(self) -> RunFolder:
        """The run that evaluate, generate and export use by default.

        Raises:
            ModelError: nothing has been trained here.
        """
        name = self.latest.read_text().strip() if self.latest.is_file() else ""
        if not name or not self.run(name).path.is_dir():
            raise ModelError(f"There is no trained run in {self.root}.", "Train one first: ptk train")
        return self.run(name)

    def existing_run(self, name: str | None) -> RunFolder:
        """Run ``name``, or the latest one.

        Raises:
            ModelError: there is no such run; the hint lists the newest runs.
        """
        if name is None:
            return self.latest_run()
        run = self.run(name)
        if not run.path.is_dir():
            known = ", ".join(self.run_names()[-5:])
            hint = f"Newest runs: {known}." if known else "Train one first: ptk train"
            raise ModelError(f"There is no run '{name}' in {self.runs}.", hint)
        return run
