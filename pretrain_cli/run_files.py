"""Tells the files in a run's folder that ptk wrote from all others."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pretrain_cli.artifacts import ADAPTER_FILES, HALF_CHECKPOINT, MODEL_FILES, Artifacts, RunFolder, is_run_name
from pretrain_cli.errors import UsageError
from pretrain_cli.foreign import foreign_entries, keep_aside, matching, remove_ours
from pretrain_cli.published import checkpoint_files, listed_files
from pretrain_cli.refusals import denied, is_denied
from pretrain_cli.sealing import bears_seal
from pretrain_cli.small_files import first_word, small_bytes
from pretrain_cli.storage import OURS, check_access, write_text
from pretrain_cli.trees import walk

RUN_FILES = (
    *("run.json", "config.toml", "metrics.jsonl", "samples.jsonl", "curves.png"),
    *("diverged-step-[0-9]*[0-9].jsonl", ".lock", ".lock.json", f".*.{OURS}*"),
)
REPORT_FILES = ("report.json", "report.html", f".*.{OURS}*")
NAMED_REPORTS = ("report-*.json", "report-*.html")
"""Reports on other texts, which are ptk's where they bear its seal."""
TRACKED = {
    "wandb": re.compile(r"(offline-)?run-\d{8}_\d{6}-[^/]+|latest-run|debug(-[a-z]+)?\.log|wandb-resume\.json"),
    "tensorboard": re.compile(r"([^/]+/)?events\.out\.tfevents\.[^/]+"),
}
"""What trackers put into a folder of theirs in a run's, by its paths there: right in it, or in a folder of it."""
REPLACED = f".{OURS}old-"
UNFINISHED = f".{OURS}"
"""How the names begin of what a killed process left: what was replaced may hold other files too."""


def check_changeable(run: RunFolder, what: str, *also: Path) -> None:
    """Check that this user may change all of a run before anything in it is changed: half of it is of no use.

    Args:
        run: as it stands there.
        what: happens to it, for the message: "removed".
        also: folders that change too, and files, beside its lock, that are written where they are.

    Raises:
        UsageError: it may not.
    """

    def refuse(error: OSError) -> None:
        if is_denied(error):
            raise error

    try:
        for place in (run.path / ".lock", *also):
            if place.is_file():
                open(place, "r+b").close()
            elif place.is_dir():
                check_access(place)
        for folder, _ in walk(run.path, refuse):
            check_access(Path(folder))
    except OSError as error:
        if not is_denied(error):
            raise
        message, hint = denied(error)
        raise UsageError(f"Run '{run.name}' can't be {what}: {message}", hint) from error


def is_run(run: RunFolder) -> bool:
    """Whether this folder was ever a run's: its record says so, or a seal, of a file that may have changed since."""
    try:
        recorded = {"status", "command"} & set(json.loads(small_bytes(run.record)))
    except (OSError, ValueError, TypeError, RecursionError):
        recorded = set()
    return bool(recorded) or bears_seal(run.record) or bears_seal(run.config)


def name_latest(artifacts: Artifacts, name: str) -> str:
    """Let the commands that are given no run use run ``name``; a file ``latest`` that names no run is kept.

    Returns:
        What has to be said of that; mostly nothing.
    """

    def names_a_run(latest: Path) -> bool:
        word = first_word(latest)
        return latest.stat().st_size == 0 or (is_run_name(word) and (artifacts.runs / word).is_dir())

    told = "" if artifacts.remote else keep_aside(artifacts.latest, names_a_run)
    write_text(artifacts.latest, name + "\n")
    return told


def run_files(run: RunFolder) -> set[str]:
    """The files and folders in a run's folder that ptk or a tracker wrote, changed since or not, by their names."""
    found = matching(RUN_FILES)(run.path)
    for name, pattern in TRACKED.items():
        found |= _within(run, run.path / name, _tracked(run.path / name, pattern))
    for folder, patterns in ((run.model, MODEL_FILES), (run.adapter, ADAPTER_FILES)):
        if _is_folder(folder):
            found |= _within(run, folder, listed_files(folder, patterns))
    if _is_folder(run.evaluation):
        reports = {name for name in matching(NAMED_REPORTS)(run.evaluation) if bears_seal(run.evaluation / name)}
        found |= _within(run, run.evaluation, matching(REPORT_FILES)(run.evaluation) | reports)
    if _is_folder(run.checkpoints):
        for step in run.checkpoint_steps():
            found |= _within(run, run.checkpoint(step), checkpoint_files(run.checkpoint(step)))
    folders = (run.model, run.adapter, run.evaluation, *map(run.checkpoint, run.checkpoint_steps()), run.checkpoints)
    for place in (folder for folder in folders if _is_folder(folder) and not any(folder.iterdir())):
        found |= _within(run, place.parent, {place.name})
    for place in (run.path, run.checkpoints, run.evaluation):
        found |= _within(run, place, _unfinished(place))
    teachers = run.teachers
    if _is_folder(teachers.runs):
        found |= _within(run, teachers.root, matching(("latest",))(teachers.root))
        for entry in sorted(teachers.runs.iterdir()):
            if _is_folder(entry) and is_run(teacher := RunFolder(entry)):  # a link may lead back to this run
                found |= _within(run, entry, run_files(teacher))
    return found


def foreign_files(run: RunFolder) -> list[Path]:
    """What is in a run's folder that neither ptk nor a tracker wrote."""
    return foreign_entries(run.path, run_files(run))


def remove_run_files(run: RunFolder) -> None:
    """Remove what is the run's, and its folder where nothing else is in it."""
    remove_ours(run.path, run_files(run), last=(".lock", run.config.name, run.record.name))


def _tracked(folder: Path, pattern: re.Pattern[str]) -> set[str]:
    if not _is_folder(folder):
        return set()
    entries = list(folder.iterdir())
    entries += [each for entry in entries if _is_folder(entry) for each in entry.iterdir()]
    return {name for name in (entry.relative_to(folder).as_posix() for entry in entries) if pattern.fullmatch(name)}


def _unfinished(folder: Path) -> set[str]:
    names = [entry.name for entry in folder.iterdir()] if _is_folder(folder) else []
    found = {name for name in names if name.startswith(UNFINISHED) or HALF_CHECKPOINT.fullmatch(name)}
    for name in [name for name in found if name.startswith(REPLACED) and _is_folder(folder / name)]:
        found.remove(name)
        found |= {
            f"{name}/{each}" for each in checkpoint_files(folder / name) | listed_files(folder / name, MODEL_FILES)
        }
    return found


def _within(run: RunFolder, folder: Path, names: set[str]) -> set[str]:
    before = folder.relative_to(run.path).as_posix()
    return names if before == "." else {f"{before}/{name}" for name in names}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
