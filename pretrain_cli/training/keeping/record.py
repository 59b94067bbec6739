"""What is written down about a run: run.json and metrics.jsonl?"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pretrain_cli.artifacts import RunFolder, read_json, read_lines, write_json, write_text
from pretrain_cli.version import __version__

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "accelerate", "wandb")


class RunRecord:
    """run.json: complete at every moment, rewritten when something changes.

    Args:
        path: run.json.
        values: what is in it.
        writes: whether this process writes it (rank 0).
    """

    def __init__(self, path: Path, values: dict[str, Any], writes: bool = True) -> None:
        self.path, self.values, self._writes = path, values, writes

    def update(self, **values: Any) -> None:
        """Set fields and write the file."""
        self.values.update(values)
        if self._writes:
            write_json(self.path, self.values)


def new_record(run: RunFolder, command: tuple[str, ...], **values: Any) -> dict[str, Any]:
    """The fields that every run has from its start on."""
    return {
        "run": run.name,
        "status": "running",
        "command": list(command),
        "versions": versions(),
        "commit": source_commit(),
        "started": now(),
        "ended": None,
        "steps": 0,
        "tokens": 0,
        **values,
    }


def read_record(run: RunFolder) -> dict[str, Any]:
    """run.json of an existing run; empty where it was never written."""
    return read_json(run.record) if run.record.is_file() else {}


def versions() -> dict[str, str]:
    """Package → version."""
    found = {"pretrain-cli": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def source_commit() -> str:
    """The commit of this code where it runs from a checkout, else empty."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Metrics:
    """metrics.jsonl: one line per logged step, written at once; lines that the disk refuses wait until it takes them.

    Args:
        path: the file.
        resumed_at: step of the checkpoint that a resume starts from: later lines are cut off first.
        writes: whether this process writes it (rank 0).
    """

    def __init__(self, path: Path, resumed_at: int | None = None, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self._file: int | None = None
        self._waiting = b""
        self.reopen(resumed_at or 0)

    def reopen(self, step: int) -> None:
        """Cut off the lines after ``step``, and go on there."""
        self.close()
        if not self._writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_lines(self.path, step)
        self._open()

    def write(self, values: Mapping[str, float]) -> None:
        """Append a line; values that aren't finite become null."""
        if self._file is not None:
            whole = {key: value if math.isfinite(value) else None for key, value in values.items()}
            self._waiting += json.dumps(whole).encode() + b"\n"
            self._drain()

    def amend(self, values: Mapping[str, float]) -> None:
        """Add values to the last line where it is of the same step, else append a line."""
        if self._file is None:
            return
        lines = read_lines(self.path)
        if not lines or lines[-1]["step"] != values["step"]:
            self.write(values)
            return
        lines[-1] |= values
        self.close()
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
        self._open()

    def sync(self) -> None:
        """Put on disk what was written, before a checkpoint that counts on it.

        Raises:
            OSError: there is no room for it.
        """
        if self._file is None:
            return
        if refusal := self._drain():
            raise OSError(refusal.errno, f"{self.path.name} can't be written: {refusal.strerror}")
        os.fsync(self._file)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._drain()
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _drain(self) -> OSError | None:
        """Write what waits; why not, where the disk refuses: full, over its quota, or a share that is away."""
        # Unbuffered, so that what it didn't take is known to the byte and follows later.
        assert self._file is not None
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            return error
        return None


def cut_lines(path: Path, step: int) -> None:
    """Leave out the lines after ``step``: a resume makes them again."""
    if path.is_file():
        lines = (json.dumps(line, ensure_ascii=False) for line in read_lines(path) if line["step"] <= step)
        write_text(path, "".join(f"{line}\n" for line in lines))
