"""Finds the files of each source that the config names, and keeps standard input while it is needed."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain_cli.addresses import redact_address
from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.input_files import STDIN, InputFile
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.errors import DataError

STDIN_COPY = ".stdin-"


@dataclass(frozen=True)
class Sources:
    """The input: files of all sources, in order, and each source's name and weight."""

    files: list[InputFile]
    names: list[str]
    weights: list[float]

    @property
    def paths(self) -> list[str]:
        """The files' paths as they were given, addresses without their secrets."""
        return [
            STDIN if Path(file.path).name.startswith(STDIN_COPY) else redact_address(file.path) for file in self.files
        ]


def find_sources(data: DataConfig) -> Sources:
    """The weighted sources, or the inputs as a single one.

    Raises:
        DataError: none is named, a path doesn't exist, or all files are empty.
    """
    if data.sources:
        named = [(redact_address(entry.name or entry.path), entry.weight, [entry.path]) for entry in data.sources]
    elif data.inputs:
        named = [("text", 1.0, list(data.inputs))]
    else:
        raise DataError("No text to prepare.", "Name some: ptk prepare data.txt")
    files = [file for index, (_, _, paths) in enumerate(named) for file in find_files(paths, index)]
    if files and all(file.size == 0 for file in files):
        raise DataError(f"{files[0].path} is empty.", "Name a file with text in it.")
    return Sources(files, [name for name, _, _ in named], [weight for _, weight, _ in named])


@contextlib.contextmanager
def stdin_kept(sources: Sources, folder: Path) -> Iterator[Sources]:
    """Standard input can be read only once: it is copied to ``folder`` for the time of the ``with`` block."""
    if not any(file.path == STDIN for file in sources.files):
        yield sources
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=STDIN_COPY) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        copy.flush()
        size = Path(copy.name).stat().st_size
        if not size:
            raise DataError("Standard input is empty.", "Pipe text into it: cat data.txt | ptk prepare -")
        files = [replace(file, path=copy.name, size=size) if file.path == STDIN else file for file in sources.files]
        yield replace(sources, files=files)
