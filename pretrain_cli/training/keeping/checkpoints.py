"""Stages, verifies, rotates and finds the folders of checkpoints, each complete or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pretrain_cli.artifacts import (
    CHECKPOINT_NAME,
    CHECKPOINT_RECORD,
    HALF_CHECKPOINT,
    MODEL_RECORD,
    OPTIMIZER_FILES,
    RunFolder,
)
from pretrain_cli.errors import ModelError
from pretrain_cli.foreign import foreign_entries, remove_ours
from pretrain_cli.published import checkpoint_files, unchanged_files
from pretrain_cli.sealing import CHANGED, is_as_sealed
from pretrain_cli.small_files import small_bytes
from pretrain_cli.storage import OURS, clear_replaced, file_hash, publish_folder, sync_folder, umask, write_sealed_json
from pretrain_cli.trees import everything_in, remove_tree

STAGING = ".staging-"
REPLACED = f".{OURS}old-"
HALF_MODEL = re.compile(rf"\.{OURS}model-[a-z0-9_]{{8}}")
WRITER = re.compile(r"(?:__|rng_state_)(\d+)")
"""In the names of shards and of random states: the process that wrote the file."""


@dataclass(frozen=True)
class Left:
    """A checkpoint that a resume skips, and why."""

    name: str
    reason: str


Hashes = dict[str, list[object]]
"""Size and hash of each file, by its path in the checkpoint's folder."""


def _nothing() -> None:
    pass


@contextlib.contextmanager
def staged(run: RunFolder, step: int, hashes: Callable[[Path], Hashes] | None = None) -> Iterator[Path]:
    """A folder to write a checkpoint into; becomes ``step-…`` when the block ends well, vanishes otherwise.

    Args:
        run: the run.
        step: of the checkpoint.
        hashes: gives what the manifest says of the files, once they are written; None: all are read back here.
    """
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=run.checkpoints, prefix=f"{STAGING}{step:06d}-"))
    try:
        yield staging
        files = (hashes or read_back)(staging)
        write_sealed_json(staging / CHECKPOINT_RECORD, {"step": step, "files": files})
        os.chmod(staging, 0o777 & ~umask())
        publish_folder(staging, run.checkpoint(step), checkpoint_files, CHECKPOINT_RECORD)
    except BaseException:
        remove_tree(staging, ignore_errors=True)
        raise


def read_back(folder: Path, rank: int = 0, processes: int = 1, check: Callable[[], None] = _nothing) -> Hashes:
    """Size and hash of each file that process ``rank`` of ``processes`` wrote, each read back first.

    Args:
        folder: of the checkpoint.
        rank: of the process; rank 0 reads what no other process wrote.
        processes: that wrote; one reads all.
        check: called before each file.

    Raises:
        OSError: a file can't be used.
    """
    found: Hashes = {}
    for path in [entry for entry in everything_in(folder) if entry.is_file()]:
        named = WRITER.match(path.name)
        writer = int(named[1]) if named else 0
        if (writer if writer < processes else 0) == rank:
            check()
            _check_readable(path)
            found[str(path.relative_to(folder))] = [path.stat().st_size, file_hash(path)]
    return found


def _check_readable(path: Path) -> None:
    """Read back a file by the rules of its format.

    Raises:
        OSError: it can't be used; before its hash is taken, and before an older checkpoint goes.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as tensors:  # its header has to fit the file's length
                tensors.keys()
        elif path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:  # torch writes a checksum with each tensor
                if torn := archive.testzip():
                    raise OSError(f"{torn} has other bytes than were written")
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
    except (SafetensorError, zipfile.BadZipFile, ValueError) as error:
        raise OSError(errno.EIO, f"{path.name} can't be read back: {error}") from error


def clear_staging(run: RunFolder) -> None:
    """Remove what a killed process left half-written; only under the run's lock."""
    for folder, half in ((run.checkpoints, HALF_CHECKPOINT), (run.path, HALF_MODEL)):
        for entry in list(folder.iterdir()) if folder.is_dir() else []:
            if half.fullmatch(entry.name):
                remove_tree(entry, ignore_errors=True)
    old = [entry.name.removeprefix(REPLACED) for entry in run.checkpoints.glob(f"{REPLACED}*")]
    for name in old:
        clear_replaced(run.checkpoints / name, checkpoint_files, CHECKPOINT_RECORD)
    for folder in (run.model, run.adapter):
        clear_replaced(folder, unchanged_files, MODEL_RECORD)


def fault(folder: Path) -> str:
    """Why the checkpoint can't be used; empty if every file is there with the bytes that were written."""
    try:
        content = small_bytes(folder / CHECKPOINT_RECORD)
        manifest = json.loads(content)
        files = {name: (size, digest) for name, (size, digest) in manifest["files"].items()}
    except FileNotFoundError:
        return f"{CHECKPOINT_RECORD} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{CHECKPOINT_RECORD} is damaged ({error})"
    if is_as_sealed(content) is False:
        return f"{CHECKPOINT_RECORD} {CHANGED}"
    if manifest.get("model_only"):
        return "it holds the model only, as it is kept as the best one"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes of {size}"
        if file_hash(path) != digest:
            return f"{name} was changed after it was written"
    return ""


def choose_checkpoint(run: RunFolder, wanted: str | None = None) -> tuple[Path | None, list[Left]]:
    """The newest checkpoint that verifies, or the wanted one; and those skipped.

    Args:
        run: the run.
        wanted: "step-000100", or "100".

    Raises:
        ModelError: the wanted one isn't there or is damaged.
    """
    if wanted is not None:
        match = CHECKPOINT_NAME.fullmatch(wanted if not wanted.isdecimal() else f"step-{int(wanted):06d}")
        folder = run.checkpoint(int(match[1])) if match else run.checkpoints / wanted
        known = ", ".join(run.checkpoint(step).name for step in run.checkpoint_steps()) or "none"
        if not match or not folder.is_dir():
            raise ModelError(f"Run '{run.name}' has no checkpoint '{wanted}'.", f"It has: {known}.")
        if reason := fault(folder):
            raise ModelError(f"The checkpoint {folder.name} can't be resumed: {reason}.", f"It has: {known}.")
        return folder, []
    left: list[Left] = []
    for step in reversed(run.checkpoint_steps()):
        folder = run.checkpoint(step)
        reason = fault(folder)
        if not reason:
            return folder, left
        left.append(Left(folder.name, reason))
    return None, left


def whole_steps(run: RunFolder) -> list[int]:
    """The steps of the checkpoints that hold more than the model, oldest first."""
    return [step for step in run.checkpoint_steps() if not _has_model_only(run.checkpoint(step))]


def rotate(run: RunFolder, keep: int, best: int, warn: Callable[[str], None]) -> None:
    """Keep the newest ``keep`` checkpoints that a run can resume from, and the best one with its model only."""
    steps = run.checkpoint_steps()
    kept = whole_steps(run)[-keep:]
    for step in steps:
        if step in kept:
            continue
        try:
            if step == best:
                keep_model_only(run.checkpoint(step))
            else:
                _remove(run.checkpoint(step))
        except OSError as error:
            warn(f"The old checkpoint {run.checkpoint(step).name} can't be removed: {error.strerror}.")


def remove_after(run: RunFolder, step: int) -> None:
    """Remove checkpoints after ``step``: a resume trains those steps again."""
    for later in run.checkpoint_steps():
        if later > step:
            _remove(run.checkpoint(later))


def _remove(folder: Path) -> None:
    """Remove a checkpoint; what ptk didn't write into its folder stays where it is."""
    ours = checkpoint_files(folder)
    if foreign_entries(folder, ours):
        remove_ours(folder, ours, (CHECKPOINT_RECORD,))
        return
    # Renamed first: a kill in the middle leaves no half checkpoint under a checkpoint's name.
    old = folder.with_name(f".old-{folder.name}")
    remove_tree(old, ignore_errors=True)
    os.replace(folder, old)
    remove_tree(old)


def remove_all(run: RunFolder) -> None:
    """Remove all checkpoints of a run that has its model."""
    remove_after(run, -1)
    clear_staging(run)
    with contextlib.suppress(OSError):  # something else is in there
        run.checkpoints.rmdir()


def _has_model_only(folder: Path) -> bool:
    try:
        return bool(json.loads(small_bytes(folder / CHECKPOINT_RECORD)).get("model_only"))
    except (OSError, ValueError, AttributeError, RecursionError):  # damaged: as old as any
        return False


def keep_model_only(folder: Path) -> None:
    """Take from a checkpoint what only a resume needs."""
    content = small_bytes(folder / CHECKPOINT_RECORD)
    manifest = json.loads(content)
    if is_as_sealed(content) is False:  # sealed anew, it would look whole
        return
    if manifest.get("model_only") or not (folder / OPTIMIZER_FILES[0]).is_file():  # sharded: kept whole
        return
    manifest["model_only"] = True
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name not in OPTIMIZER_FILES}
    write_sealed_json(folder / CHECKPOINT_RECORD, manifest)
    for name in OPTIMIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
