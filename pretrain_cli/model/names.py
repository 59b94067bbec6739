"""Finds the model that a name means: a run, one of its checkpoints, a folder, its base, or a Hub id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.artifacts import ADAPTER_CONFIG, CHECKPOINT_NAME, Artifacts, RunFolder
from pretrain_cli.base import find_base
from pretrain_cli.errors import ModelError, PtkError
from pretrain_cli.model.kept import is_kept, keep
from pretrain_cli.published import check_published
from pretrain_cli.refusals import check_decodable
from pretrain_cli.run_record import read_run_record
from pretrain_cli.storage import source_hash, temporary_folder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class NamedModel:
    """A model that can be opened.

    Attributes:
        name: what reports call it.
        location: a folder with weights, a .gguf file, or a Hub id.
        run: the run it belongs to, if any.
        step: the checkpoint's step, None for a finished model.
        tokenizer: the folder or Hub id that its tokenizer is in.
    """

    name: str
    location: str
    tokenizer: str
    run: RunFolder | None = None
    step: int | None = None


@contextmanager
def removal_told(named: NamedModel) -> Iterator[None]:
    """Where ``named`` is removed while it is read, that is the error, whichever file a library missed first.

    Raises:
        ModelError: it was removed meanwhile.
    """
    try:
        yield
    except (OSError, PtkError) as error:
        if named.run is None or Path(named.location).exists():
            raise
        raise ModelError(
            f"'{named.name}' was removed while it was read.", "Name another one. Runs: ptk runs list"
        ) from error


def find_model(name: str | None, artifacts: Artifacts, checkpoint: str | None = None) -> NamedModel:
    """The model that ``name`` means; None is the latest run, "base" the latest run's base.

    ``RUN@step-000100`` is a checkpoint of a run.

    Raises:
        ModelError: there is no such run, checkpoint, folder or base.
        UsageError: its name isn't UTF-8.
    """
    if name is not None and "@" in name and checkpoint is None and "://" not in name and not Path(name).exists():
        name, checkpoint = name.rsplit("@", 1)
        name = name or None
    if name == "base":
        return base_of(artifacts.latest_run(), artifacts)
    run = _find_run(name, artifacts)
    if run is not None:
        return _run_model(run, artifacts, checkpoint)
    assert name is not None
    if checkpoint is not None:
        raise ModelError(
            f"'{name}' is not a run, so it has no checkpoint {checkpoint}.", "List the runs: ptk runs list"
        )
    check_decodable(name, "Rename it, or make a link to it: ln -s")
    folder = Path(name)
    if folder.is_dir():
        elsewhere = _run_at(folder)
        if elsewhere is not None:
            return _run_model(elsewhere, artifacts, None)
        return NamedModel(folder.name or name, str(folder), str(folder))
    if folder.is_file() or name == "smollm2":
        return _from_base(name, artifacts)
    if HUB_ID.fullmatch(name) and not name.startswith((".", "/")):
        return NamedModel(name, name, name)
    known = ", ".join(artifacts.run_names()[-5:]) or "none yet"
    raise ModelError(
        f"'{name}' is not a run in {artifacts.runs}, a folder or a Hub id.",
        f"Runs there: {known}. A Hub id looks like owner/name.",
    )


def base_of(run: RunFolder, artifacts: Artifacts) -> NamedModel:
    """The model that ``run`` continued from.

    Raises:
        ModelError: the run started from scratch.
    """
    base = base_name(run)
    if not base:
        raise ModelError(
            f"Run '{run.name}' has no base: it was trained from scratch.",
            "Name another model to compare with: a run, a folder or a Hub id.",
        )
    found = _from_base(base, artifacts)
    return NamedModel("base", found.location, found.tokenizer)


def base_name(run: RunFolder) -> str:
    """The base that the run's record names; empty for a run from scratch or without a record."""
    record = read_run_record(run)
    return record.base if record else ""


def checkpoints_of(run: RunFolder) -> list[str]:
    """Names of the run's checkpoints, ascending: ``step-000100``, ..."""
    return [run.checkpoint(step).name for step in run.checkpoint_steps()]


def _run_at(folder: Path) -> RunFolder | None:
    """The run that ``folder`` or the folder of its model belongs to, in whichever artifact folder."""
    own = folder.parent if folder.name == "model" else folder
    return RunFolder(own) if (own / "run.json").is_file() and (own / "model").is_dir() else None


def _find_run(name: str | None, artifacts: Artifacts) -> RunFolder | None:
    if name is None:
        return artifacts.latest_run()
    if "/" in name or name.startswith(".") or not (artifacts.runs / name).is_dir():
        return None
    return artifacts.run(name)


def _run_model(run: RunFolder, artifacts: Artifacts, checkpoint: str | None) -> NamedModel:
    if checkpoint is None:
        if not run.model.is_dir():
            steps = checkpoints_of(run)
            hint = f"Name a checkpoint, {run.name}@{steps[-1]}, or finish it" if steps else "Finish it"
            hint += f": ptk train --resume {run.name}"
            raise ModelError(f"Run '{run.name}' has no finished model.", hint)
        return NamedModel(run.name, str(run.model), str(run.model), run)
    if checkpoint.isdecimal():
        checkpoint = f"step-{int(checkpoint):06d}"
    match = CHECKPOINT_NAME.fullmatch(checkpoint)
    folder = run.checkpoints / checkpoint
    if match is None or not folder.is_dir():
        known = ", ".join(checkpoints_of(run)) or "none"
        raise ModelError(f"Run '{run.name}' has no checkpoint '{checkpoint}'.", f"It has: {known}.")
    own = (folder / "tokenizer.json").is_file()
    tokenizer = folder if own else run.model if (run.model / "tokenizer.json").is_file() else artifacts.tokenizer
    return NamedModel(f"{run.name}@{checkpoint}", str(folder), str(tokenizer), run, int(match[1]))


def _from_base(name: str, artifacts: Artifacts) -> NamedModel:
    location = find_base(name, artifacts).location
    return NamedModel(name, location, location)


def open_folders(named: NamedModel, artifacts: Artifacts) -> tuple[str, Path]:
    """Where the weights can be loaded from (a folder or Hub id), and a folder with the tokenizer.

    A .gguf file is converted once and kept under ``artifacts.bases``; so is an adapter, merged with its base. A Hub
    model's tokenizer is kept there too.

    Raises:
        ModelError: weights or tokenizer aren't there, or aren't those that ptk published there.
    """
    location = Path(named.location)
    if location.is_file():
        from pretrain_cli.model.gguf_reading import convert_gguf

        folder = convert_gguf(location, artifacts)
        return str(folder), folder
    if location.is_dir() and (location / ADAPTER_CONFIG).is_file() and not (location / "config.json").is_file():
        from pretrain_cli.model.build import base_location

        folder = Path(base_location(find_base(str(location), artifacts), artifacts))
        own = Path(named.tokenizer)
        return str(folder), own if (own / "tokenizer.json").is_file() else folder
    if location.is_dir():
        tokenizer = Path(named.tokenizer)
        check_published(location, tensors=False)
        if tokenizer != location:
            check_published(tokenizer, tensors=False, tokenizer_only=True)
        return str(location), tokenizer if (tokenizer / "tokenizer.json").is_file() else _made(tokenizer, artifacts)
    from pretrain_cli.tokenizer.copy import copy_tokenizer

    folder = artifacts.bases / (named.location.replace("/", "--") + "-tokenizer")
    if not is_kept(folder, "tokenizer.json"):
        with temporary_folder(artifacts.bases, "tokenizer") as staging:
            copy_tokenizer(find_base(named.location, artifacts), staging / "tokenizer")
            keep(staging / "tokenizer", folder)
    return named.location, folder


def _made(folder: Path, artifacts: Artifacts) -> Path:
    """A folder with a tokenizer.json, made once from the older files that ``folder`` has instead.

    Raises:
        ModelError: it has none, or transformers can't read them.
        MissingDependencyError: a package that reads them isn't installed.
    """
    from pretrain_cli.base import Base
    from pretrain_cli.tokenizer.copy import copy_tokenizer, tokenizer_files

    files = tokenizer_files(folder)
    if not files:
        raise ModelError(f"{folder} has no tokenizer.json.", "Put the model's tokenizer next to its weights.")
    kept = artifacts.bases / f"{folder.name}-tokenizer-{source_hash(files)[:16]}"
    if not is_kept(kept, "tokenizer.json"):
        with temporary_folder(artifacts.bases, "tokenizer") as staging:
            copy_tokenizer(Base(str(folder), "folder", str(folder)), staging / "tokenizer")
            keep(staging / "tokenizer", kept)
    return kept
