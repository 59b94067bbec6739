"""Brings runs here from object storage, where they are further there, and the bytes that their records name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pretrain_cli.artifacts import FOLDER_RECORDS, Artifacts, RunFolder
from pretrain_cli.cli.sent import changed_since
from pretrain_cli.errors import PtkError
from pretrain_cli.published import recorded_files
from pretrain_cli.records import FileRecord, damaged_files
from pretrain_cli.remote import RemoteFolder
from pretrain_cli.run_record import read_run_record
from pretrain_cli.trees import remove_tree

AT_ONCE = 8


def bring_runs(artifacts: Artifacts, remote: RemoteFolder) -> list[str]:
    """The runs that are there, of their checkpoints the newest; returns those that are further here.

    They stay as they are: the network failed, or a kill came, before all of them was sent.

    Raises:
        StorageError: a file is missing or damaged, or the storage doesn't answer.
    """
    there = remote.files("runs")
    runs: dict[str, list[str]] = {}
    for name in there:
        if name.count("/") > 1:
            runs.setdefault(name.split("/")[1], []).append(name.split("/", 2)[2])
    further = [run for run, names in sorted(runs.items()) if not _bring_run(artifacts, remote, run, names)]
    if not artifacts.latest.is_file() and there:
        with contextlib.suppress(PtkError):
            remote.get("latest", artifacts.latest)
    return further


def _bring_run(artifacts: Artifacts, remote: RemoteFolder, run: str, names: list[str]) -> bool:
    """Whether it is here now as it is there."""
    here, fresh = RunFolder(artifacts.runs / run), RunFolder(artifacts.runs / f".there-{run}")
    remove_tree(fresh.path, ignore_errors=True)
    newest = max((name.split("/")[1] for name in names if name.startswith("checkpoints/")), default="")
    wanted = [name for name in names if not name.startswith("checkpoints/") or name.split("/")[1] == newest]
    # What vouches for other files goes to a place of its own until they are here.
    vouching = [name for name in wanted if name == fresh.record.name or name.rpartition("/")[2] in FOLDER_RECORDS]
    try:
        _fetch(remote, run, dict.fromkeys(vouching), fresh.path)
        if here.record.is_file():
            own, theirs = _how_far(here), _how_far(fresh)
            if own > theirs or (own == theirs and changed_since(artifacts.root, f"runs/{run}")):
                return False
        hashes = _recorded(fresh, vouching)
        left = {name: hashes.get(name) for name in wanted if name not in vouching}
        _fetch(remote, run, {name: own for name, own in left.items() if not _is_here(here.path, name, own)}, here.path)
        for name in sorted(vouching, key=lambda name: name == fresh.record.name):
            (here.path / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh.path / name, here.path / name)
        return True
    finally:
        remove_tree(fresh.path, ignore_errors=True)


def _fetch(remote: RemoteFolder, run: str, files: Mapping[str, FileRecord | None], folder: Path) -> None:
    def fetch(name: str) -> None:
        remote.get(f"runs/{run}/{name}", folder / name, files[name])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fetch, files))


def _how_far(run: RunFolder) -> tuple[int, int, bool]:
    """How often it was resumed, its newest step on record, and whether it has finished; less than any where unknown."""
    try:
        record = read_run_record(run)
    except PtkError:
        record = None
    if record is None:
        return -1, 0, False
    return len(record.resumes), max(record.steps, record.checkpoint_step), record.status == "finished"


def _recorded(run: RunFolder, vouching: list[str]) -> dict[str, FileRecord]:
    """Size and hash of each file that a record names; a damaged record vouches for nothing, its reader will tell."""
    found: dict[str, FileRecord] = {}
    with contextlib.suppress(PtkError):
        record = read_run_record(run)
        found |= record.files if record is not None else {}
    for name in vouching:
        folder = name.rpartition("/")[0]
        with contextlib.suppress(PtkError):
            found |= {f"{folder}/{file}": own for file, own in (recorded_files(run.path / folder) or {}).items()}
    return found


def _is_here(folder: Path, name: str, record: FileRecord | None) -> bool:
    return record is not None and not damaged_files(folder, {name: record}, read=True)
