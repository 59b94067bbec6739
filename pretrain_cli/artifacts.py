"""Names everything in the artifact folder, and writes files so that they are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_cli.errors import DataError, ModelError, PtkError, UsageError
from pretrain_cli.formatting import byte_size

if TYPE_CHECKING:
    import filelock

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ORPHAN_SECONDS = 8.0
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
"""The disk is full, or the user's quota is used up."""
CHECKPOINT_NAME = re.compile(r"step-(\d{6,})")


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

    def comparison(self, first: str, second: str) -> Path:
        """The page that compares two runs."""
        return self.root / "comparisons" / f"{first}--{second}.html"

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

    def read_manifest(self) -> dict[str, Any]:
        """The prepared data's manifest.

        Raises:
            DataError: prepare hasn't finished here, or the file is damaged.
        """
        if not self.manifest.is_file():
            raise DataError(f"There is no prepared data in {self.root}.", "Prepare some first: ptk prepare data.txt")
        return read_json(self.manifest)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        DataError: the file is missing or isn't a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}.", "Create it again with the command that wrote it.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} isn't a JSON object.", "Create it again with the command that wrote it.")
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or samples.jsonl; none if there is no file.

    Leaves out a half-written line, as a killed process leaves it.
    """
    lines = []
    for text in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            lines.append(value)
    return lines


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` to ``path``, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, completely or not at all: temporary name, fsync, rename, fsync of the folder."""
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def publish_folder(staging: Path, final: Path) -> None:
    """Give a finished folder its final name, after an fsync of every file. It replaces an older ``final``."""
    for entry in sorted(staging.rglob("*")):
        if entry.is_file():
            entry.chmod(entry.stat().st_mode | 0o644 & ~_umask())
            with open(entry, "rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(entry)
    sync_folder(staging)
    old = final.with_name(f".old-{final.name}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(staging, final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """fsync a folder, if the system can, so that a rename in it survives a power failure."""
    if os.name == "nt":  # folders can't be opened there, and renames are journaled
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn the system's refusals to write under ``folder`` into errors that say what to do."""
    try:
        yield
    except PermissionError as error:
        where = error.filename or folder
        raise UsageError(
            f"{where} can't be written: {error.strerror}.", "Choose another folder with --artifacts DIR."
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{error.filename or folder} is a file, but a folder is needed there.",
            "Choose another folder with --artifacts DIR.",
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise _no_space(folder) from error
        if error.errno == errno.EROFS:
            raise UsageError(
                f"{folder} is on a read-only file system.", "Choose another folder with --artifacts DIR."
            ) from error
        raise
    except Exception as error:
        if any(os.strerror(number) in str(error) for number in FULL):  # safetensors and torch raise their own types
            raise _no_space(folder) from error
        raise


def _no_space(folder: Path) -> NoSpaceError:
    free = byte_size(shutil.disk_usage(existing_folder(folder)).free)
    return NoSpaceError(
        f"No space left on the disk of {folder} ({free} free).",
        "Free some space, or choose another folder with --artifacts DIR. Everything that was complete is kept.",
    )


class NoSpaceError(PtkError):
    """The disk is full: exit code 3, because the output of a stage is missing."""

    exit_code = 3
    kind = "disk"


@contextlib.contextmanager
def lock(folder: Path, what: str) -> Iterator[None]:
    """Lock ``folder`` for this process. The system frees the lock however the process ends.

    Raises:
        UsageError: another process holds the lock; the message names it.
    """
    import filelock

    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        holder = folder / ".lock.json"
        guard = filelock.FileLock(folder / ".lock")
        try:
            guard.acquire(timeout=0)
        except filelock.Timeout as error:
            pid = read_json(holder).get("pid", "unknown") if holder.is_file() else "unknown"
            if not (isinstance(pid, int) and _outlived(guard, pid)):
                raise UsageError(
                    f"Another process (pid {pid}) is already {what} in {folder}.",
                    "Wait until it ends, stop it, or choose another folder.",
                ) from error
        try:
            holder.write_text(json.dumps({"pid": os.getpid()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            guard.release()


def _outlived(guard: filelock.BaseFileLock, pid: int) -> bool:
    """Take over the lock of a killed process: its loader workers hold it until they notice, for up to 5 s."""
    import filelock
    import psutil

    if psutil.pid_exists(pid):
        return False
    try:
        guard.acquire(timeout=ORPHAN_SECONDS)
        return True
    except filelock.Timeout:
        return False


def existing_folder(path: Path) -> Path:
    """``path`` if it exists, else the nearest folder above it that does."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
