"""What prepare promises the other stages: the manifest, a typed and versioned record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from pretrain_cli.addresses import redact_all
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import DataError, PtkError
from pretrain_cli.formatting import count_of, exact
from pretrain_cli.manifest_records import (
    FileAccount,
    HeldOutRecord,
    InputRecord,
    Ledger,
    RowLayout,
    SourceRecord,
    SplitRecord,
    Statistics,
    TextColumn,
    TokenizerRecord,
)
from pretrain_cli.records import FileRecord, VersionedRecord, damaged_files, read_versioned
from pretrain_cli.refusals import denied
from pretrain_cli.storage import read_json, write_sealed_json

VERSION = 2
"""Of the manifest's format. Version 1 had no statistics."""
MANIFEST = "data/manifest.json"
"""Path in the artifact folder of the manifest itself."""
REJECTED = "data/rejected.jsonl"
"""Path in the artifact folder of a list for people: whoever deletes it can still train."""
INPUT_LIST = "data/inputs.arrow"
"""Path in the artifact folder of the list of all input files: without it, the next prepare hashes them again."""
LISTS = (REJECTED, INPUT_LIST)
KINDS_TOLD = 5
"""Kinds of files that are named where the text is told."""
INPUTS_SHOWN = 100
"""Input files that the manifest itself lists."""
READ_AT_ONCE = 1 << 30
"""Bytes of rows that a training reads before it begins: at most a second. Of more, it checks the sizes."""


class Manifest(VersionedRecord):
    """Everything that the other stages may know of the prepared data.

    Attributes:
        version: of this format.
        settings: how the rows were made.
        inputs: the files that the text came from, the first hundred of them; all are in data/inputs.arrow.
        inputs_total: how many there are; 0 in manifests that list them all.
        inputs_stamp: names all of them by their sizes and times, where these can be trusted.
        inputs_hashed_ns: when they were about to be hashed, in nanoseconds since 1970.
        tokenizer: that made the ids.
        base: the base that the rows were prepared for; empty from scratch.
        base_tokenizer: names the bytes of that base's own tokenizer, where it made the ids and is in files here.
        train, validation: what the splits hold.
        held_out: what the validation split is of; None for data prepared by 0.1.0, or where nothing is held out.
        sources: name → what it gave.
        input_files: the files that the inputs hold, read or not; None for data prepared by 0.1.0.
        text_columns: that were chosen where none was named: name → how often it holds a text.
        statistics: figures of all rows.
        rejected: bad records by reason, which were left out.
        ledger: where every byte and token went.
        request: every key of the config that shapes the rows, as it was asked for, and what names the inputs' bytes.
        warnings, notes: what was said while preparing.
        files: path in the artifact folder → record, of every published file; none for data prepared by 0.1.0.
        fingerprint: names the rows: equal fingerprints mean equal rows.
        seconds: that prepare took.
    """

    version: int = VERSION
    settings: RowLayout
    inputs: tuple[InputRecord, ...] = ()
    inputs_total: int = 0
    inputs_stamp: str = ""
    inputs_hashed_ns: int = 0
    tokenizer: TokenizerRecord
    base: str = ""
    base_tokenizer: str = ""
    train: SplitRecord
    validation: SplitRecord = SplitRecord()
    held_out: HeldOutRecord | None = None
    sources: dict[str, SourceRecord] = {}
    input_files: FileAccount | None = None
    text_columns: dict[str, TextColumn] = {}
    statistics: Statistics
    rejected: dict[str, int] = {}
    ledger: Ledger
    request: dict[str, JsonValue] = {}
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, FileRecord] = {}
    fingerprint: str
    seconds: float = 0.0

    @property
    def input_count(self) -> int:
        """How many files the text came from."""
        return self.inputs_total or len(self.inputs)

    @property
    def told_inputs(self) -> str:
        """What the text came from, in words: a file's name, or "55 files (txt 20, pdf 11)", those that gave text."""
        if self.input_count == 1 and self.inputs:
            return Path(self.inputs[0].path).name
        read = self.input_files.read if self.input_files is not None else {}
        if not read:
            return count_of(self.input_count, "file") if self.input_count else ""
        files = sum(group.files for group in read.values())
        kinds = sorted(read.items(), key=lambda entry: -entry[1].files)
        shown = ", ".join(f"{kind} {exact(group.files)}" for kind, group in kinds[:KINDS_TOLD])
        return f"{count_of(files, 'file')} ({shown}{', others' if len(kinds) > KINDS_TOLD else ''})"


def read_manifest(artifacts: Artifacts) -> Manifest:
    """The manifest of the prepared data.

    Raises:
        DataError: prepare hasn't finished here, or the manifest is damaged or of another version.
    """
    try:
        there = artifacts.manifest.is_file()
    except PermissionError as error:
        raise DataError(*denied(error)) from error
    if not there:
        raise DataError(f"There is no prepared data in {artifacts.root}.", "Prepare some first: ptk prepare data.txt")
    hint = "Prepare the text again: ptk prepare"
    return read_versioned(artifacts.manifest, Manifest, VERSION, VERSION, DataError, hint)


def damages(artifacts: Artifacts, manifest: Manifest, *, read: bool, lists: bool = False) -> list[str]:
    """What differs from the published rows and tokenizer: sizes, and with ``read`` every byte.

    Of a folder in object storage, only what was copied here: a command copies no rows that it doesn't read.

    Args:
        artifacts: the folder.
        manifest: what it says of the files.
        read: compare hashes, not sizes alone.
        lists: the lists of inputs and of what was left out, too: no training needs them.
    """
    files = {name: record for name, record in manifest.files.items() if lists or name not in LISTS}
    if artifacts.remote:
        files = {name: record for name, record in files.items() if (artifacts.root / name).exists()}
    return damaged_files(artifacts.root, files, read=read)


def check_sizes(artifacts: Artifacts, manifest: Manifest) -> None:
    """Every published file has the size that it was written with.

    Raises:
        DataError: one hasn't, or is missing.
    """
    _refuse(damages(artifacts, manifest, read=False))


def check_bytes(artifacts: Artifacts, manifest: Manifest, split: str) -> None:
    """The tokenizer and the rows of a split ("train" or "validation") have the bytes that they were written with.

    Reads them all, and takes a second for a few gigabytes; of more than `READ_AT_ONCE`, nothing is read.

    Raises:
        DataError: they haven't.
    """
    folders = (f"data/{split}/", "tokenizer/")
    files = {name: record for name, record in manifest.files.items() if name.startswith(folders)}
    if sum(record.size for record in files.values()) <= READ_AT_ONCE:
        _refuse(damaged_files(artifacts.root, files, read=True))


@contextlib.contextmanager
def damage_explained(artifacts: Artifacts, manifest: Manifest) -> Iterator[None]:
    """Let an error that nothing else explains say that the rows have changed since they were opened, if they have.

    Raises:
        DataError: they have.
    """
    try:
        yield
    except PtkError:
        raise
    except Exception:
        if _is_there(artifacts, manifest):  # replaced by a prepare, what was opened stays as it was
            check_sizes(artifacts, manifest)
            for split in ("train", "validation"):
                check_bytes(artifacts, manifest, split)
        raise


def _is_there(artifacts: Artifacts, manifest: Manifest) -> bool:
    try:
        return bool(read_json(artifacts.manifest).get("fingerprint") == manifest.fingerprint)
    except DataError:
        return False


def _refuse(found: list[str]) -> None:
    if found:
        raise DataError(f"The prepared data is damaged: {found[0]}.", "Prepare the text again: ptk prepare")


def check_still(artifacts: Artifacts, manifest: Manifest) -> None:
    """The data that has been opened is what ``manifest`` describes: whole, and not replaced by a prepare meanwhile.

    Raises:
        DataError: a file is damaged, or a prepare has replaced it, or is doing it now.
    """
    if not _is_there(artifacts, manifest):
        raise DataError(
            f"The prepared data in {artifacts.root} was replaced while it was being opened.",
            "Run the command again once no ptk prepare is running there.",
        )
    check_sizes(artifacts, manifest)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``manifest``, complete or not at all."""
    write_sealed_json(path, redact_all(manifest.model_dump(mode="json", by_alias=True)))
