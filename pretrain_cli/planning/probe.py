"""Measures a step's seconds and the memory at its peak on this machine, by training for a few steps.

Runs as its own process (``python -m pretrain_cli.planning.probe FOLDER SECONDS``): the peak is then the training's
alone, and nothing of it is left in the caller.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import to_toml
from pretrain_cli.config.model import Config
from pretrain_cli.data.rows.schema import PackedBatch
from pretrain_cli.data.rows.writer import RowWriter
from pretrain_cli.errors import ModelError, PtkError
from pretrain_cli.manifest_records import RowLayout
from pretrain_cli.memory import peak_resident_bytes
from pretrain_cli.processes import safe_path
from pretrain_cli.progress import Progress
from pretrain_cli.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from pretrain_cli.training.rows.prepared import PreparedRows

RESULT, ROWS = "measured.json", "rows.json"
LEAST_ROWS = 256
WARM_UP_STEPS = 2
TIME_OUT_S = 600
"""The first step of a model that is far too large for the machine may take this long."""
LONG_STEP = 3
"""A first step that takes so many times the whole measurement is enough: warming up is little of it."""


@dataclass(frozen=True)
class Measured:
    """Steps of the very training that is planned: median seconds, bytes at the peak, seconds before the first."""

    step_seconds: float
    steps: int
    peak_bytes: float
    start_seconds: float


@dataclass(frozen=True)
class ProbeRows:
    """The rows to train on: ``pieces`` documents in each random row; 0: the prepared rows."""

    sequence_length: int
    packing: str
    vocab_size: int
    pieces: int = 0


class Enough(Exception):
    """The clock of the measurement has run out."""


class Watch(Progress):
    """Notes the time of each step; ends the training ``seconds`` after the first, which also compiles and imports.

    A first step that is very long ends it too.
    """

    def __init__(self, seconds: float, compiled: bool) -> None:
        self._seconds, self._compiled = seconds, compiled
        self.times = [time.perf_counter()]

    def stage(self, name: str, total: float | None = None, unit: str = "") -> None:
        self.times = [time.perf_counter()]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.times.append(time.perf_counter())
        first, since = self.times[1] - self.times[0], self.times[-1] - self.times[1]
        long = first >= LONG_STEP * self._seconds and not self._compiled
        if long or (len(self.times) > 2 and since >= self._seconds):
            raise Enough


def measure(
    config: Config, model_config: PreTrainedConfig | None, rows: ProbeRows, prepared: Artifacts, seconds: float
) -> Measured:
    """Train for ``seconds`` on the prepared rows, or on random ones, with everything as ``config`` has settled it.

    The prepared rows come first: their documents make the masks that training will have.

    Args:
        config: with sizes, batch, precision and threads settled.
        model_config: transformers' config of the base's shape; None from scratch.
        rows: what the rows are, prepared or random.
        prepared: holds the tokenizer, or a stand-in of the same size is made; and the rows.
        seconds: of steps.

    Raises:
        PtkError: the training itself fails; its own error.
        ModelError: it was killed, most often for its memory; or one step takes too long to wait for.
    """
    with tempfile.TemporaryDirectory(prefix="ptk-plan-") as name:
        folder = Path(name)
        _fill(folder, config, model_config, rows, prepared)
        line = [sys.executable, "-m", __name__, name, str(seconds)]
        try:
            process = subprocess.run(
                line,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=TIME_OUT_S,
                env={**os.environ, **safe_path()},
            )
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"One step of this training takes more than {TIME_OUT_S // 60} minutes here.",
                "Plan without real steps: ptk plan --measure 0; or use a smaller model or train.batch_tokens.",
            ) from None
        if process.returncode or not (folder / RESULT).is_file():
            last = (process.stderr.strip().splitlines() or ["it was killed: most often the memory has run out"])[-1]
            raise ModelError(
                f"Training this model for a few steps failed here: {last}", "Plan without it: ptk plan --measure 0"
            )
        return Measured(**read_json(folder / RESULT))


def run(folder: Path, seconds: float) -> None:
    """The measurement's own process: train until `Watch` has seen enough, then write what it saw."""
    began = time.perf_counter()
    from pretrain_cli.quiet import quiet_libraries
    from pretrain_cli.training.run import train_on

    quiet_libraries()
    config = Config.model_validate(tomllib.loads((folder / "config.toml").read_text("utf-8")))
    watch = Watch(seconds, config.train.compile is True)
    rows, artifacts = ProbeRows(**read_json(folder / ROWS)), Artifacts(folder)
    try:
        train_on(
            lambda machine: _open_rows(rows, artifacts, config, machine.on_cpu),
            config,
            artifacts,
            watch,
            run_name="probe",
            started=time.monotonic(),
        )
    except Enough:
        pass
    steps = np.diff(watch.times).tolist()
    steady = steps[WARM_UP_STEPS if len(steps) > 2 * WARM_UP_STEPS else 1 :] or steps
    step = statistics.median(steady)
    result = Measured(step, len(steps), _peak_bytes(), watch.times[0] - began + max(0.0, steps[0] - step))
    write_json(folder / RESULT, result.__dict__)


def _open_rows(rows: ProbeRows, artifacts: Artifacts, config: Config, on_cpu: bool) -> PreparedRows:
    """What training has to know of the rows."""
    from pretrain_cli.data.rows.batches import PackedDataset
    from pretrain_cli.tokenizer.load import read_tokenizer
    from pretrain_cli.training.rows.prepared import PreparedRows, keeps_apart

    masked = keeps_apart(config.train.mask_documents, rows.packing, rows.sequence_length, on_cpu)
    return PreparedRows(
        fingerprint="probe",
        layout=RowLayout(sequence_length=rows.sequence_length, packing=rows.packing),
        tokenizer=read_tokenizer(artifacts.tokenizer),
        train=PackedDataset(artifacts.train_rows, mask_documents=masked),
        validation=None,
        sequence_length=rows.sequence_length,
        masked=masked,
    )


def _fill(
    folder: Path, config: Config, model_config: PreTrainedConfig | None, rows: ProbeRows, prepared: Artifacts
) -> None:
    """Rows, a tokenizer, and the config that trains on them without end, checkpoint or tracker."""
    from pretrain_cli.config.load import changed

    artifacts, beside = Artifacts(folder), config.train.method in ("lora", "qlora")
    if (prepared.tokenizer / "tokenizer.json").is_file():
        shutil.copytree(prepared.tokenizer, artifacts.tokenizer)
    else:
        _stand_in(artifacts.tokenizer, rows.vocab_size)
    base = ""
    if model_config is not None:
        base = str(folder / "base")
        if beside:
            _random_base(model_config, base)
        else:
            model_config.save_pretrained(base)
    if rows.pieces:
        many = max(LEAST_ROWS, 2 * int(config.train.batch_tokens) // rows.sequence_length)
        _write_rows(artifacts.train_rows, many, rows.sequence_length, rows.vocab_size, rows.pieces)
    else:
        artifacts.train_rows.parent.mkdir(parents=True)
        artifacts.train_rows.symlink_to(prepared.train_rows.resolve(), target_is_directory=True)
    write_json(folder / ROWS, rows.__dict__)
    endless = {
        "train__max_steps": 10**9, "train__max_tokens": None, "train__max_minutes": None, "train__epochs": None,
        "train__save_steps": 0, "train__eval_steps": 0, "train__logging_steps": 1, "train__early_stopping": 0,
        "train__sample_prompts": (), "tracking__report_to": "none", "model__base": base, "train__processes": 1,
        "model__init": "random" if base and not beside else "base", "data__inputs": (),
        "data__add_bos": "auto", "data__add_eos": True,
    }  # fmt: skip
    write_text(folder / "config.toml", to_toml(changed(config, **endless)))


def _random_base(model_config: PreTrainedConfig, folder: str) -> None:
    """A base of that shape with random weights: LoRA is put beside weights that are opened as they would be."""
    import torch

    from pretrain_cli.training.measuring.methods import build

    whole = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        build(model_config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(whole)


def _stand_in(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models

    folder.mkdir(parents=True)
    names = {"<|bos|>": 0, "<|eos|>": 1, "<|pad|>": 2} | {f"t{index}": index for index in range(3, vocabulary)}
    Tokenizer(models.BPE(vocab=names, merges=[])).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8"
    )


def _write_rows(folder: Path, rows: int, length: int, vocabulary: int, pieces: int) -> None:
    """Rows of random ids, each of ``pieces`` documents."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, length), dtype=np.uint32)
    lengths = np.diff(np.linspace(0, length, pieces + 1).astype(np.int32))
    batch = PackedBatch(
        ids,
        np.full(rows, pieces),
        np.tile(lengths.astype(np.int32), rows),
        np.arange(pieces * rows),
        np.zeros(pieces * rows, np.int64),
        np.zeros(pieces * rows, np.int16),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with RowWriter(folder, length, np.uint32) as writer:
        writer.write(batch)


def _peak_bytes() -> float:
    """This process's own peak: on a GPU what torch has held there, else the resident set."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_reserved())
    return float(peak_resident_bytes())


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]), float(sys.argv[2]))
    except PtkError as failure:
        sys.exit(f"{failure.message} {failure.hint}")
