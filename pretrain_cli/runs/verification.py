"""Compares every file that ptk published with its record: the prepared data, runs, exports and pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pretrain_cli.artifacts import CHECKPOINT_RECORD, EXPORT_RECORD, MODEL_RECORD, Artifacts, RunFolder
from pretrain_cli.errors import PtkError
from pretrain_cli.evaluation_report import REPORTS, read_report
from pretrain_cli.manifest import read_manifest
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.published import recorded_files
from pretrain_cli.records import FileRecord, damaged_files
from pretrain_cli.refusals import is_denied, unreadable_at
from pretrain_cli.run_files import run_files
from pretrain_cli.run_record import parse_run_config, read_run_record
from pretrain_cli.runs.summary import is_training
from pretrain_cli.sealing import CHANGED, is_as_sealed
from pretrain_cli.small_files import small_bytes

LOCKS = {".lock", ".lock.json"}
MISSING = "is missing"
NO_HASH = "has no hash on record"
LOST = "has lost its hash, which the files beside it still have"


@dataclass(frozen=True)
class Finding:
    """A file, and what was found: words that follow its path in a sentence."""

    path: Path
    told: str


@dataclass(frozen=True)
class Verification:
    """What a comparison of all files with their records found.

    Attributes:
        files: that are as they were written.
        bytes: of those.
        differs: files that are missing or differ.
        unrecorded: files that nothing is known of, as ptk 0.1.0 wrote them.
        training: runs that are being trained now, which were left out.
    """

    files: int
    bytes: int
    differs: list[Finding]
    unrecorded: list[Finding]
    training: list[str]

    @property
    def ok(self) -> bool:
        """Whether no file differs."""
        return not self.differs


def verify(artifacts: Artifacts, run: str | None = None, progress: Progress = SILENT) -> Verification:
    """Read every file that ptk published in the artifact folder, or in one run's, and compare it with its record.

    Raises:
        ModelError: there is no such run.
    """
    check, folders = _Check(progress), [artifacts.existing_run(run)] if run is not None else []
    if run is None:
        with check.readable():
            folders = _all_runs(artifacts)
    training = [folder.name for folder in folders if is_training(folder)]
    progress.stage("comparing files with their records", unit="bytes")
    if run is None:
        with check.readable():
            check.data(artifacts)
        with check.readable():
            check.latest(artifacts)
        with check.readable():
            for page in _entries(artifacts.root / "comparisons", "*.html"):
                check.sealed(page)
        for models, record in ((artifacts.exports, EXPORT_RECORD), (artifacts.bases, MODEL_RECORD)):
            with check.readable():
                for model in _entries(models):
                    check.recorded(model, model / record)
        with check.readable():
            for measured in _entries(artifacts.root / "evaluation"):
                check.evaluation(measured)
    for folder in folders:
        if folder.name not in training:
            with check.readable():
                check.run(folder)
            with check.readable():
                for each in _all_runs(folder.teachers):
                    check.run(each)
    progress.end_stage()
    return Verification(check.files, check.bytes, check.differs, check.unrecorded, training)


def _all_runs(artifacts: Artifacts) -> list[RunFolder]:
    """Every folder of a run, those without a run.json too."""
    return [RunFolder(entry) for entry in _entries(artifacts.runs) if entry.is_dir() and not entry.name.startswith(".")]


def _entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What is in ``folder`` with a name of this kind; nothing where there is no folder.

    Raises:
        PermissionError: it can't be listed, which a glob would keep to itself.
    """
    return sorted(entry for entry in folder.iterdir() if fnmatch(entry.name, pattern)) if folder.is_dir() else []


class _Check:
    """Collects what is found."""

    def __init__(self, progress: Progress) -> None:
        self.files = self.bytes = 0
        self.differs: list[Finding] = []
        self.unrecorded: list[Finding] = []
        self._progress = progress

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """What this user may not read is a finding; the rest is compared all the same."""
        try:
            yield
        except OSError as error:
            if not is_denied(error) or error.filename is None:
                raise
            self._add(unreadable_at(Path(error.filename)) or Path(error.filename), f"can't be read: {error.strerror}")

    def data(self, artifacts: Artifacts) -> None:
        """The manifest, and all files that it names."""
        if not artifacts.manifest.is_file():
            if any(folder.is_dir() for folder in (artifacts.train_rows, artifacts.validation_rows)):
                self.differs.append(Finding(artifacts.manifest, MISSING))
            return
        if not self.sealed(artifacts.manifest):
            return
        try:
            manifest = read_manifest(artifacts)
        except PtkError as error:
            self._add(artifacts.manifest, error.message)
            return
        self._recorded(artifacts.root, manifest.files)
        if not manifest.files:
            self.unrecorded.append(Finding(artifacts.data, NO_HASH))

    def latest(self, artifacts: Artifacts) -> None:
        """The file that names the latest run."""
        if not artifacts.latest.is_file():
            return
        content = small_bytes(artifacts.latest)
        if content not in {f"{folder.name}\n".encode() for folder in _all_runs(artifacts)}:
            self.differs.append(Finding(artifacts.latest, "names no run"))
        else:
            self._same(artifacts.latest)

    def run(self, run: RunFolder) -> None:
        """A run's record, config, metrics, model, checkpoints and report."""
        known, finished = run.record.is_file(), False
        if not known and run_files(run) - LOCKS:  # what a removal leaves is nobody's but the user's
            self.differs.append(Finding(run.record, MISSING))
        if known and self.sealed(run.record):
            try:
                record = read_run_record(run)
                self._recorded(run.path, record.files if record is not None else {})
                finished = record is not None and record.status == "finished"
                self._config(run)
            except PtkError as error:
                self._add(run.record, error.message)
        elif run.config.is_file():
            self._config(run)
        with self.readable():
            for step in run.checkpoint_steps():
                self.folder(run.checkpoint(step), run.checkpoint(step) / CHECKPOINT_RECORD)
        if finished and not run.model.is_dir():
            self.differs.append(Finding(run.model, MISSING))
        lost = known and _has_seal(run.record)
        for folder in (run.model, run.adapter):
            if folder.is_dir():
                self.folder(folder, folder / MODEL_RECORD, lost=lost)
        self.evaluation(run.evaluation)

    def _config(self, run: RunFolder) -> None:
        lost = run.record.is_file() and _has_seal(run.record)
        if not run.config.is_file():
            self.differs.append(Finding(run.config, MISSING))
        elif self.sealed(run.config, lost=lost):
            try:
                parse_run_config(run)
            except PtkError as error:
                self._add(run.config, error.message)

    def evaluation(self, folder: Path) -> None:
        """The reports and their pages."""
        with self.readable():
            self._reports(_entries(folder, REPORTS))

    def _reports(self, reports: list[Path]) -> None:
        for report in reports:
            if self.sealed(report):
                try:
                    read_report(report.parent, report.name)
                except PtkError as error:
                    self._add(report, error.message)
            lost, page = _has_seal(report), report.with_suffix(".html")
            if not page.is_file():
                self.differs.append(Finding(page, MISSING))
            else:
                self.sealed(page, lost=lost)

    def recorded(self, folder: Path, record: Path) -> None:
        """An export or a base, if that is what the folder holds."""
        with self.readable():
            if record.is_file():
                self.folder(folder, record)

    def folder(self, folder: Path, record: Path, *, lost: bool = False) -> None:
        """A model, an export or a checkpoint: the record, and all files that it names. ``lost``: it must have one."""
        with self.readable():
            self._folder(folder, record, lost)

    def _folder(self, folder: Path, record: Path, lost: bool) -> None:
        try:
            files = recorded_files(folder)
        except PtkError as error:
            self._add(record, error.message)
            return
        if files is None and lost:
            self.differs.append(Finding(record, MISSING))
            return
        if files is None:
            self.unrecorded.append(Finding(folder, NO_HASH))
            return
        self._same(record)
        self._recorded(folder, files)

    def sealed(self, file: Path, *, lost: bool = False) -> bool:
        """A file that holds its own hash; whether it is worth reading further. ``lost``: it must have one."""
        if not file.is_file():  # a pipe would be read for ever
            self.differs.append(Finding(file, "is no longer a file"))
            return False
        try:
            state = is_as_sealed(small_bytes(file))
        except OSError as error:
            self.differs.append(Finding(file, f"can't be read: {error.strerror}"))
            return False
        if state is False or (state is None and lost):
            self.differs.append(Finding(file, LOST if state is None else CHANGED))
            return False
        if state is None:
            self.unrecorded.append(Finding(file, NO_HASH))
        else:
            self._same(file)
        return True

    def _recorded(self, folder: Path, files: Mapping[str, FileRecord]) -> None:
        for name, record in files.items():
            found = damaged_files(folder, {name: record}, read=True)
            if found:
                self._add(folder / name, found[0])
            else:
                self._same(folder / name)

    def _same(self, file: Path) -> None:
        self.files += 1
        self.bytes += file.stat().st_size
        self._progress.advance(self.bytes)

    def _add(self, path: Path, told: str) -> None:
        """A file that differs, with a sentence that may begin with its path."""
        words = told.removesuffix(".").removeprefix(f"{path} ")
        if all(found.path != path for found in self.differs):
            self.differs.append(Finding(path, words))


def _has_seal(file: Path) -> bool:
    """Whether a file holds its own hash; not of one that can't be read, which is told elsewhere."""
    try:
        return is_as_sealed(small_bytes(file)) is not None
    except OSError:
        return False
