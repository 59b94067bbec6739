"""Tells the files in a run's folder that ptk wrote from all others."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.artifacts import ADAPTER_FILES, MODEL_FILES, Artifacts, RunFolder, is_run_name
from pretrain_cli.errors import UsageError
from pretrain_cli.foreign import foreign_entries, keep_aside, matching, remove_ours
from pretrain_cli.published import checkpoint_files, listed_files
from pretrain_cli.refusals import denied, is_denied
from pretrain_cli.small_files import first_word
from pretrain_cli.storage import OURS, check_access, write_text
from pretrain_cli.trees import walk

RUN_FILES = (
    *("run.json", "config.toml", "metrics.jsonl", "samples.jsonl", "curves.png"),
    *("diverged-step-*.jsonl", ".lock", ".lock.json", f".*.{OURS}*"),
)
REPORT_FILES = ("report.json", "report.html", "report-*.json", "report-*.html", f".*.{OURS}*")
TRACKERS = ("wandb", "tensorboard")
"""Folders in a run's that a tracker fills."""
REPLACED = f".{OURS}old-"
UNFINISHED = (".staging-", ".old-", f".{OURS}")
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
    """Whether this folder was ever a run's: something in it says so."""
    return run.record.is_file() or run.config.is_file()


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
    found = matching(RUN_FILES)(run.path) | {name for name in TRACKERS if _is_folder(run.path / name)}
    for folder, patterns in ((run.model, MODEL_FILES), (run.adapter, ADAPTER_FILES)):
        if _is_folder(folder):
            found |= _within(run, folder, listed_files(folder, patterns))
    if _is_folder(run.evaluation):
        found |= _within(run, run.evaluation, matching(REPORT_FILES)(run.evaluation))
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


def _unfinished(folder: Path) -> set[str]:
    entries = folder.iterdir() if _is_folder(folder) else ()
    found = {entry.name for entry in entries if entry.name.startswith(UNFINISHED)}
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
