"""Finds the files of each source that the config names, and keeps standard input while it is needed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain_cli.addresses import redact_address
from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.folders import Account
from pretrain_cli.data.reading.input_files import PIPE, STDIN, InputFile
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.pipes import COPY, copy_pipe, copy_stdin
from pretrain_cli.errors import ConfigError, DataError

STDIN_NAME = "standard input"


@dataclass(frozen=True)
class Sources:
    """The input: files of all sources, in order, each source's name and weight, and an account of all files found.

    ``replay``: number of the source whose text is mixed in to be remembered, and of which nothing is held out.
    """

    files: FileTable
    names: list[str]
    weights: list[float]
    account: Account
    replay: int | None = None

    @property
    def own_files(self) -> FileTable:
        """The files of the user's own text: all but those that are mixed in to be remembered."""
        if self.replay is None:
            return self.files
        own = FileTable()
        for number in range(len(self.names)):
            if number != self.replay:
                own.extend(self.files.of_source(number))
        return own

    def paths(self) -> Iterator[str]:
        """The files' paths as they were given, addresses without their secrets."""
        for place in range(len(self.files)):
            name = self.files.name(place)
            yield STDIN if name == STDIN_NAME else redact_address(name)


def find_sources(data: DataConfig, artifacts: Path) -> Sources:
    """The weighted sources, or the inputs as a single one; without the folder ``artifacts``, where it lies within them.

    Raises:
        DataError: none is named, a path doesn't exist, or all files are empty.
    """
    if data.sources:
        named = [(redact_address(entry.name or entry.path), entry.weight, [entry.path]) for entry in data.sources]
    elif data.inputs:
        named = [("text", 1.0, list(data.inputs))]
    else:
        raise DataError("No text to prepare.", "Name some: ptk prepare data.txt")
    account, strict = Account(own=os.path.realpath(artifacts)), data.on_error == "fail"
    files = FileTable()
    for at, (_, _, paths) in enumerate(named):
        found = find_files(paths, at, account, strict)
        if at:
            files.extend(found)
        else:
            files = found
    if files and not any(files.sizes):
        raise DataError(f"{files[0].path} is empty.", "Name a file with text in it.")
    return Sources(files, [name for name, _, _ in named], [weight for _, weight, _ in named], account)


def check_stages(data: DataConfig, sources: Sources) -> None:
    """Every stage's mixture is of sources that there are.

    Raises:
        ConfigError: one isn't, or two sources share a name.
    """
    if not data.stages:
        return
    named = [name for stage in data.stages for name in stage.mixture]
    if unknown := [name for name in named if name not in sources.names]:
        raise ConfigError(
            f"[[data.stages]] names the source '{unknown[0]}', and there is none of that name.",
            f"Sources: {', '.join(sources.names)}. A [[data.sources]] table gives one its name.",
        )
    if len(set(sources.names)) < len(sources.names):
        raise ConfigError("Two sources have the same name.", "Give each [[data.sources]] a name of its own.")


@contextlib.contextmanager
def pipes_kept(sources: Sources, folder: Path) -> Iterator[Sources]:
    """Standard input and pipes can be read only once: they are copied to ``folder`` for the time of the block."""
    if not any(_is_read_once(sources.files, at) for at, size in enumerate(sources.files.sizes) if size < 0):
        yield sources
        return
    with contextlib.ExitStack() as copies:
        files = FileTable()
        for at, (file, changed_ns) in enumerate(zip(sources.files, sources.files.changed_ns, strict=True)):
            files.append(_kept(file, folder, copies) if _is_read_once(sources.files, at) else file, changed_ns)
        yield replace(sources, files=files)


def _is_read_once(files: FileTable, at: int) -> bool:
    return files.path(at) == STDIN or files.sizes[at] == PIPE


def _kept(file: InputFile, folder: Path, copies: contextlib.ExitStack) -> InputFile:
    copy = copies.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix=COPY))  # noqa: SIM115
    if file.path == STDIN:
        copy_stdin(copy)
    else:
        copy_pipe(Path(file.path), copy)
    size = Path(copy.name).stat().st_size
    if not size:
        name = "Standard input" if file.path == STDIN else file.path
        raise DataError(f"{name} is empty.", "Pipe text into it: cat data.txt | ptk prepare -")
    return file._replace(path=copy.name, size=size, shown=STDIN_NAME if file.path == STDIN else file.path)
