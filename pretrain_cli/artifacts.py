"""Names everything in the artifact folder."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pretrain_cli.errors import ModelError, UsageError
from pretrain_cli.small_files import first_word

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""
LONGEST_NAME = 150
"""Characters of a page's name that lists runs."""
ROW_FILES = ("*.arrow", "state.json", "dataset_info.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "extension.json"),
    *("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model"),
)
MODEL_RECORD, EXPORT_RECORD, CHECKPOINT_RECORD = ".ptk-files.json", ".ptk-export.json", "manifest.json"
FOLDER_RECORDS = (MODEL_RECORD, EXPORT_RECORD, CHECKPOINT_RECORD)
"""Where the sizes and hashes of the files in a run's model, an export and a checkpoint are."""
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
MODEL_FILES = (MODEL_RECORD, *WEIGHTS, "config.json", "generation_config.json", "README.md", *TOKENIZER_FILES)
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""As PEFT calls them."""
ADAPTER_FILES = (MODEL_RECORD, ADAPTER_WEIGHTS, ADAPTER_CONFIG, "README.md")
OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt")
"""Of a checkpoint, what only a resume needs."""
CHECKPOINT_FILES = (
    *(CHECKPOINT_RECORD, *WEIGHTS, ADAPTER_WEIGHTS, ADAPTER_CONFIG, "config.json", "generation_config.json"),
    *(*OPTIMIZER_FILES, "scaler.pt", "rng_state*.pth", "trainer_state.json", "ptk.json"),
)
"""Patterns of the files that ptk writes into the folders of rows, tokenizers, models, adapters and checkpoints, where
no record lists them."""
SHARDS = "sharded"
"""The folder in a checkpoint that holds the shards of a model."""
CHECKPOINT_NAME = re.compile(r"step-(\d{6,})")
HALF_CHECKPOINT = re.compile(r"\.staging-\d{6,}-[a-z0-9_]{8}|\.old-step-\d{6,}")
"""What a killed process leaves of a checkpoint that it wrote or removed."""


def ollama_name(model: str) -> str:
    """What a model is called in Ollama, which takes no capitals and no @."""
    return model.replace("@", "-").lower()


def is_run_name(name: str) -> bool:
    """Whether a run's folder may have this name, on every system."""
    return RUN_NAME.fullmatch(name) is not None and not name.endswith(".") and not RESERVED.fullmatch(name)


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
    def teachers(self) -> Artifacts:
        """teachers/: an artifact folder of its own, whose runs taught this one (`train.ensemble`)."""
        return Artifacts(self.path / "teachers")

    @property
    def curves(self) -> Path:
        """curves.png: loss, learning rate, gradient norm and speed by step."""
        return self.path / "curves.png"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """The steps that have a checkpoint folder, in ascending order. Staging folders have other names.

        Where a checkpoint was removed that the user had put files into, these are left, and are no checkpoint.
        """
        if not self.checkpoints.is_dir():
            return []
        folders = [entry for entry in self.checkpoints.iterdir() if CHECKPOINT_NAME.fullmatch(entry.name)]
        return sorted(int(folder.name.rpartition("-")[2]) for folder in folders if _is_checkpoint(folder))

    @property
    def model(self) -> Path:
        """The finished model: weights, tokenizer, model card."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """LoRA's matrices, as PEFT opens them; they are merged in `model`."""
        return self.path / "adapter"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"


def _is_checkpoint(folder: Path) -> bool:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):  # a training that runs now has removed it since it was listed
        return False
    own = any(fnmatch(name, each) for name in names for each in CHECKPOINT_FILES)
    return not names or own or any((folder / SHARDS).glob("*.distcp"))


def _recorded_at(folder: Path) -> float | None:
    """When run.json in ``folder`` was written last; of a folder that this user may not open, when that was changed."""
    try:
        found = (folder / "run.json").stat()
        return found.st_ctime if stat.S_ISREG(found.st_mode) else None
    except PermissionError:
        return folder.lstat().st_ctime
    except OSError:
        return None


@dataclass(frozen=True)
class Artifacts:
    """The folder that all commands share. It has no state: every property is a path.

    ``remote`` is the address of the folder in object storage that ``root`` is a copy of; empty where it is none.
    """

    root: Path
    remote: str = ""

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
    def input_list(self) -> Path:
        """data/inputs.arrow: every input file with its size, hash and times."""
        return self.data / "inputs.arrow"

    @property
    def rejected(self) -> Path:
        """data/rejected.jsonl: the bad records, which are left out unless ``data.on_error`` makes them an error."""
        return self.data / "rejected.jsonl"

    @property
    def replay(self) -> Path:
        """General text that was drawn or written to be mixed in; safe to delete."""
        return self.root / "replay"

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
        if not is_run_name(name):
            raise UsageError(
                f"'{name}' is not a valid run name.",
                "Use up to 100 letters, digits, '.', '_' and '-'; start with a letter or digit, end without a dot.",
            )
        return RunFolder(self.runs / name)

    def run_names(self) -> list[str]:
        """The existing runs, oldest first."""
        try:
            entries = [entry for entry in self.runs.iterdir() if is_run_name(entry.name)]  # "a (copy)" can't be named
        except (FileNotFoundError, NotADirectoryError):
            return []
        times = {entry.name: _recorded_at(entry) for entry in entries}
        return sorted((name for name, time in times.items() if time is not None), key=lambda name: times[name] or 0.0)

    def latest_run(self) -> RunFolder:
        """The run that evaluate, generate and export use by default.

        Raises:
            ModelError: nothing has been trained here, or the file that names it can't be read.
        """
        name = first_word(self.latest)
        if not name and self.latest.is_file() and not os.access(self.latest, os.R_OK):
            runs = ", ".join(self.run_names()[-5:])
            raise ModelError(f"{self.latest} can't be read: Permission denied.", f"Name a run: {runs}.")
        if not is_run_name(name) or not self.run(name).path.is_dir():
            begun = self.run_names()
            if not begun:
                raise ModelError(f"There is no trained run in {self.root}.", "Train one first: ptk train")
            raise ModelError(
                f"No run in {self.root} is finished; '{begun[-1]}' is the newest.",
                f"Finish it: ptk train --resume {begun[-1]}; or name it, or one of its checkpoints.",
            )
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
