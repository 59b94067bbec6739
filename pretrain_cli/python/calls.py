"""Offers the commands as functions: config keys are keyword arguments, and results show themselves in a notebook."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.load import changed
from pretrain_cli.progress import Progress
from pretrain_cli.python.bars import progress_here
from pretrain_cli.python.results import Evaluated, Generated, Prepared, Trained, shown
from pretrain_cli.python.settings import Settings, offers, settings
from pretrain_cli.quiet import quiet_import

if TYPE_CHECKING:
    from pandas import DataFrame

    from pretrain_cli.exporting.run import ExportResult

Folder = str | Path | Artifacts | None


@offers("data", "tokenizer", "model")
def prepare(
    *inputs: str | Path,
    artifacts: Folder = None,
    config: Settings = None,
    preset: str | None = None,
    progress: Progress | None = None,
    **keywords: object,
) -> Prepared:
    """Turn text into a tokenizer and packed rows, as ``ptk prepare`` does.

    Args:
        inputs: files, folders, globs or addresses.
        artifacts: the folder for all outputs; ``artifacts``, unless PTK_ARTIFACTS names another.
        config: a TOML file, or a whole config (``load_config().config``); None: ``ptk.toml``, where there is one.
        preset: scratch, continue, smollm2 or tinysolar.
        progress: told what happens; None: a bar in a notebook, nothing in a script.
        keywords: config keys of ``data``, ``tokenizer`` and ``model``, such as ``sequence_length=128``.

    Raises:
        DataError: an input is missing, empty or damaged.
        ConfigError: a keyword that isn't a setting, or a value that isn't valid.
    """
    progress = progress or progress_here()
    with _loading(progress):
        from pretrain_cli.data.prepare import prepare as run_prepare

    asked = settings(("data", "tokenizer", "model"), config, preset, keywords, progress).config
    if inputs:
        asked = changed(asked, data__inputs=[str(entry) for entry in inputs])
    return shown(Prepared, run_prepare(asked, _folder(artifacts), progress))


@offers("train", "model", "tracking")
def train(
    *,
    run: str | None = None,
    resume: str | None = None,
    artifacts: Folder = None,
    config: Settings = None,
    preset: str | None = None,
    progress: Progress | None = None,
    **keywords: object,
) -> Trained:
    """Train a model on the prepared rows, or resume a run, as ``ptk train`` does, in this process.

    Interrupting the kernel saves and stops; ``resume=""`` continues there.

    Args:
        run: name of a new run; None: run-001, run-002, …
        resume: a run to resume, or a checkpoint of it ("first@step-000100"); "": the run touched last.
        artifacts: as in `prepare`.
        config: as in `prepare`.
        preset: as in `prepare`.
        progress: as in `prepare`.
        keywords: config keys of ``train``, ``model`` and ``tracking``, such as ``max_minutes=2``.

    Raises:
        DataError: nothing is prepared.
        ConfigError: settings that don't fit each other or the prepared data.
        ModelError: the base or a checkpoint can't be used.
        DivergedError: the loss diverged.
        Interrupted: it was stopped; everything up to that step is saved.
    """
    progress = progress or progress_here()
    with _loading(progress):
        from pretrain_cli.training.run import train as run_train

    found = settings(("train", "model", "tracking"), config, preset, keywords, progress)
    result = run_train(
        found.config,
        _folder(artifacts),
        progress,
        run_name=run,
        resume=resume,
        command=("pretrain_cli.train",),
        origins=found.origins,
    )
    return shown(Trained, result)


@offers("evaluate")
def evaluate(
    *models: str | Path,
    artifacts: Folder = None,
    config: Settings = None,
    preset: str | None = None,
    progress: Progress | None = None,
    **keywords: object,
) -> Evaluated:
    """Score models on held-out text and general English, as ``ptk evaluate`` does.

    Args:
        models: runs, folders or Hub ids; none: the latest run, with the base that it continued from.
        artifacts: as in `prepare`.
        config: as in `prepare`.
        preset: as in `prepare`.
        progress: as in `prepare`.
        keywords: config keys of ``evaluate``, such as ``on=["mine=other.txt"]``.

    Raises:
        ModelError: a model isn't there or is damaged.
        DataError: a text isn't there or is too short.
    """
    progress = progress or progress_here()
    with _loading(progress):
        from pretrain_cli.evaluation.run import evaluate as run_evaluate

    asked = settings(("evaluate", "data"), config, preset, keywords, progress).config
    names = [str(entry) for entry in models]
    return shown(Evaluated, run_evaluate(asked, _folder(artifacts), progress, models=names))


@offers("generate")
def generate(
    *prompts: str,
    model: str | Path | None = None,
    checkpoint: str | None = None,
    artifacts: Folder = None,
    config: Settings = None,
    preset: str | None = None,
    progress: Progress | None = None,
    **keywords: object,
) -> Generated:
    """Continue prompts with a model, as ``ptk generate`` does.

    Args:
        prompts: texts to continue; "" starts a new document.
        model: a run, a folder, a Hub id, a .gguf file or "base"; None: the latest run.
        checkpoint: one of the run's checkpoints, such as "step-000100".
        artifacts: as in `prepare`.
        config: as in `prepare`.
        preset: as in `prepare`.
        progress: as in `prepare`.
        keywords: config keys of ``generate``, such as ``max_tokens=60``.

    Raises:
        UsageError: no prompt.
        ModelError: the model isn't there or is damaged.
    """
    progress = progress or progress_here()
    with _loading(progress):
        from pretrain_cli.generation.run import generate as run_generate

    result = run_generate(
        settings(("generate",), config, preset, keywords, progress).config,
        _folder(artifacts),
        progress,
        prompts=prompts,
        model=None if model is None else str(model),
        checkpoint=checkpoint,
    )
    return shown(Generated, result)


def export(
    run: str | None = None,
    to: str = "hf",
    *,
    output: str | Path | None = None,
    quantization: str = "f16",
    checkpoint: str | None = None,
    push_to_hub: str | None = None,
    artifacts: Folder = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a model for other programs, as ``ptk export`` does.

    Args:
        run: a run; None: the latest.
        to: "hf", "gguf", or "ollama" (a .gguf file with a Modelfile).
        output: the folder to write into; None: ``exports/`` in the artifact folder.
        quantization: "f16" or "q8_0", for gguf and ollama.
        checkpoint: one of its checkpoints instead of the finished model.
        push_to_hub: a repository, owner/name, to upload to.
        artifacts: as in `prepare`.
        progress: as in `prepare`.

    Raises:
        UsageError: an unknown format, or an output folder that holds something else.
        ModelError: there is no such model, or what was written doesn't open.
        MissingDependencyError: gguf isn't installed.
    """
    from pretrain_cli.exporting.run import export as run_export

    return run_export(
        _folder(artifacts),
        progress or progress_here(),
        to=to,
        run=run,
        checkpoint=checkpoint,
        output=None if output is None else Path(output),
        quantization=quantization,
        push_to_hub=push_to_hub,
    )


def all_runs(artifacts: Folder = None) -> DataFrame:
    """All runs as a pandas frame, oldest first: the fields of ``ptk runs list --json`` by the run's name.

    Args:
        artifacts: as in `prepare`.
    """
    from pandas import DataFrame

    from pretrain_cli.runs.summary import list_runs

    rows = [asdict(entry) for entry in list_runs(_folder(artifacts))]
    return DataFrame(rows).set_index("name") if rows else DataFrame()


@contextlib.contextmanager
def _loading(progress: Progress) -> Iterator[None]:
    """Say what the first call waits for, and keep the libraries' own messages about notebooks away."""
    first = "torch" not in sys.modules
    if first:
        progress.stage("loading the libraries")
    with warnings.catch_warnings(), quiet_import():
        warnings.filterwarnings("ignore", "IProgress not found")  # by tqdm, for bars that ptk doesn't use
        import_module("tqdm.auto")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # names a package that ptk doesn't use
        yield
    if first:
        progress.end_stage()


def _folder(artifacts: Folder) -> Artifacts:
    if isinstance(artifacts, Artifacts):
        return artifacts
    return Artifacts(Path(artifacts or os.environ.get("PTK_ARTIFACTS") or "artifacts"))
