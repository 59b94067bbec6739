"""The names of everything in the artifact folder, with writes that are complete or absent."""

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
from typing import Any

from pretrain_cli.errors import DataError, ModelError, PtkError, UsageError

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ORPHAN_SECONDS = 8.0
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
"""The disk, or the user's share of it."""
CHECKPOINT_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class RunFolder:
    """One training run's folder, ``runs/<name>/``."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """The whole resolved config, TOML."""
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
        """samples.jsonl: what the model wrote during its training."""
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder, ascending. Staging folders never match the name."""
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
    """The folder that all commands share. Holds no state: every property is a path."""

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
        """data/manifest.json, written last: prepare is complete when it is there."""
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
        """Models in other formats, one folder each."""
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
            UsageError: the name can't be a folder's name on every system.
        """
        if not RUN_NAME.fullmatch(name):
            raise UsageError(
                f"'{name}' can't be the name of a run.", "Use letters, digits, '.', '_' and '-', at most 100."
            )
        return RunFolder(self.runs / name)

    def run_names(self) -> list[str]:
        """Runs that exist, oldest first."""
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
            raise ModelError(f"No trained run in {self.root}.", "Train one first: ptk train")
        return self.run(name)

    def existing_run(self, name: str | None) -> RunFolder:
        """Run ``name``, or the latest.

        Raises:
            ModelError: there is no such run; the message names the nearest ones.
        """
        if name is None:
            return self.latest_run()
        run = self.run(name)
        if not run.path.is_dir():
            known = ", ".join(self.run_names()[-5:]) or "none yet"
            raise ModelError(f"No run named '{name}' in {self.runs}.", f"Runs there: {known}.")
        return run

    def read_manifest(self) -> dict[str, Any]:
        """The prepared data's manifest.

        Raises:
            DataError: prepare hasn't finished here, or the file is damaged.
        """
        if not self.manifest.is_file():
            raise DataError(f"No prepared data in {self.root}.", "Prepare some first: ptk prepare data.txt")
        return read_json(self.manifest)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        DataError: it isn't there, or isn't a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}.", "Make it again with the command that wrote it.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds no JSON object.", "Make it again with the command that wrote it.")
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or samples.jsonl; none without the file. A half-written one, as a kill leaves it, is
    left out."""
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
    """Write ``value`` to ``path``, complete or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, complete or not at all: temporary name, fsync, rename, fsync of the folder."""
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
    """Give a finished folder its name: every file fsynced, then renamed; an older ``final`` goes when it is there."""
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
    """fsync a folder, where the system can, so that a rename in it survives a power cut."""
    if os.name == "nt":  # a folder can't be opened there, and renames are journalled
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
            f"{error.filename or folder} is a file where a folder is needed.",
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
        if any(os.strerror(number) in str(error) for number in FULL):  # safetensors and torch raise types of their own
            raise _no_space(folder) from error
        raise


def _no_space(folder: Path) -> NoSpaceError:
    free_mb = shutil.disk_usage(existing_folder(folder)).free / 1e6
    return NoSpaceError(
        f"No space left on the disk of {folder} ({free_mb:.0f} MB free).",
        "Free some space, or choose another folder with --artifacts DIR; what was complete is kept.",
    )


class NoSpaceError(PtkError):
    """The disk is full: exit code 3, since what is missing is the stage's output."""

    exit_code = 3
    kind = "disk"


@contextlib.contextmanager
def lock(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` for this process alone; freed by the system however the process ends.

    Raises:
        UsageError: another process holds it; the message names that process.
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
                    "Wait for it to end, stop it, or choose another folder.",
                ) from error
        try:
            holder.write_text(json.dumps({"pid": os.getpid()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            guard.release()


def _outlived(guard: Any, pid: int) -> bool:
    """Take the lock of a process that was killed: its loader workers hold it until they notice, 5 s at most."""
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
    """``path``, or the nearest folder above it that exists: where it would be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
