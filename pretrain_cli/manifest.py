"""What prepare promises the other stages: the manifest, a typed and versioned record."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, JsonValue

from pretrain_cli.addresses import redact_all
from pretrain_cli.artifacts import Artifacts
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of
from pretrain_cli.records import FileRecord, Record, VersionedRecord, damaged_files, read_versioned
from pretrain_cli.storage import read_json, write_json

VERSION = 2
"""Of the manifest's format. Version 1 had no statistics."""


class RowLayout(Record):
    """How the rows were made, with every ``auto`` resolved."""

    sequence_length: int
    packing: str = ""
    add_bos: bool = False
    add_eos: bool = False
    dtype: str = "uint32"
    cleaning: tuple[str, ...] = ()
    split: str = ""
    validation_fraction: float = 0.0


class InputRecord(Record):
    """One input file: its path as given, its size in bytes as stored, and the xxh3-128 of those bytes."""

    path: str
    size: int
    hash: str


class TokenizerRecord(Record):
    """The tokenizer that made the rows.

    Attributes:
        fingerprint: names what decides ids.
        vocab_size: number of ids.
        engine: what encoded the text.
        source: where it comes from, in words.
        key: names what it depends on.
        longest_word: characters after which a word is split before its bytes are merged; 0: never.
    """

    fingerprint: str
    vocab_size: int
    engine: str = ""
    source: str = ""
    key: str = ""
    longest_word: int = 0


class SplitRecord(Record):
    """What one split holds. ``bytes`` are of UTF-8 text."""

    rows: int = 0
    tokens: int = 0
    documents: int = 0
    bytes: int = 0

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens of a byte of text, which turns a loss per token into bits per byte; None for an empty split."""
        return self.tokens / self.bytes if self.bytes else None


class HeldOutRecord(Record):
    """What the held-out text is of.

    Attributes:
        whole: documents that are held out whole.
        ends: documents whose end is held out.
        kinds: ending of a file → share of the bytes of its kind that is held out.
        files: of the files that most is held out of, their share of all held-out bytes.
        documents: number of a held-out document → its file, of the first ones.
    """

    whole: int
    ends: int
    kinds: dict[str, float] = {}
    files: dict[str, float] = {}
    documents: dict[str, str] = {}

    def told(self) -> str:
        """In words: "the ends of 10 documents and 12 whole ones, the most from a.txt (40%) and b.html (21%)"."""
        ends = f"the {'end' if self.ends == 1 else 'ends'} of {count_of(self.ends, 'document')}"
        if not self.ends:
            what = count_of(self.whole, "document")
        else:
            what = f"{ends} and {count_of(self.whole, 'whole one')}" if self.whole else ends
        largest = [f"{name} ({share:.0%})" for name, share in list(self.files.items())[:2]]
        if len(self.files) == 1:
            return f"{what}, of {next(iter(self.files))}"
        return f"{what}, the most from {' and '.join(largest)}"


class SourceRecord(Record):
    """What one source gave to train on, and what of it is held out. A document taken twice counts twice."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    validation_documents: int = 0
    validation_tokens: int = 0
    validation_bytes: int = 0


class Statistics(Record):
    """Figures of all rows.

    Attributes:
        fill: share of the rows' places that hold tokens.
        bytes_per_token: of the encoded text.
        pieces_per_row: documents, or pieces of one, in a row on average.
        document_tokens: documents by the next power of two of their tokens, BOS and EOS counted.
    """

    fill: float
    bytes_per_token: float
    pieces_per_row: float
    document_tokens: dict[str, int] = {}


class DocumentLedger(Record):
    """Documents: ``read`` = ``kept`` + the sum of ``dropped``, by reason."""

    read: int = Field(alias="in")
    kept: int
    dropped: dict[str, int] = {}


class ByteLedger(Record):
    """Bytes of UTF-8 text: ``read`` = ``kept`` + the sum of ``dropped`` + ``changed_by_cleaning``."""

    read: int = Field(alias="in")
    kept: int
    dropped: dict[str, int] = {}
    changed_by_cleaning: int = 0


class TokenLedger(Record):
    """Tokens: ``made`` = ``encoded`` + ``marks`` + ``repeated`` = ``train`` + ``validation`` + ``dropped``.

    ``marks`` are BOS and EOS around each document.
    """

    encoded: int
    marks: int
    repeated: int
    made: int
    train: int
    validation: int
    dropped: dict[str, int] = {}


class Unwritable(Record):
    """Bytes that the tokenizer has no token for; ``by_document`` lists the first documents that have any."""

    documents: int = 0
    bytes: int = 0
    by_document: dict[str, int] = {}


class Ledger(Record):
    """Where every document, byte and token went. ``padding`` counts the rows' places without a token."""

    documents: DocumentLedger
    bytes: ByteLedger
    tokens: TokenLedger
    padding: int
    repeated_documents: int = 0
    unwritable: Unwritable = Unwritable()


class Manifest(VersionedRecord):
    """Everything that the other stages may know of the prepared data.

    Attributes:
        version: of this format.
        settings: how the rows were made.
        inputs: the files that the text came from.
        tokenizer: that made the ids.
        base: the base that the rows were prepared for; empty from scratch.
        train, validation: what the splits hold.
        held_out: what the validation split is of; None for data prepared by 0.1.0, or where nothing is held out.
        sources: name → what it gave.
        statistics: figures of all rows.
        rejected: bad records by reason, which ``data.on_error = "skip"`` left out.
        ledger: where every byte and token went.
        request: every key of the config that shapes the rows, as it was asked for, with the inputs' hashes.
        warnings, notes: what was said while preparing.
        files: path in the artifact folder → record, of every published file; none for data prepared by 0.1.0.
        fingerprint: names the rows: equal fingerprints mean equal rows.
        seconds: that prepare took.
    """

    version: int = VERSION
    settings: RowLayout
    inputs: tuple[InputRecord, ...] = ()
    tokenizer: TokenizerRecord
    base: str = ""
    train: SplitRecord
    validation: SplitRecord = SplitRecord()
    held_out: HeldOutRecord | None = None
    sources: dict[str, SourceRecord] = {}
    statistics: Statistics
    rejected: dict[str, int] = {}
    ledger: Ledger
    request: dict[str, JsonValue] = {}
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, FileRecord] = {}
    fingerprint: str
    seconds: float = 0.0


def read_manifest(artifacts: Artifacts) -> Manifest:
    """The manifest of the prepared data.

    Raises:
        DataError: prepare hasn't finished here, or the manifest is damaged or of another version.
    """
    if not artifacts.manifest.is_file():
        raise DataError(f"There is no prepared data in {artifacts.root}.", "Prepare some first: ptk prepare data.txt")
    hint = "Prepare the text again: ptk prepare"
    return read_versioned(artifacts.manifest, Manifest, VERSION, VERSION, DataError, hint)


def damages(artifacts: Artifacts, manifest: Manifest, *, read: bool) -> list[str]:
    """What differs from the published data: sizes, and with ``read`` every byte."""
    return damaged_files(artifacts.root, manifest.files, read=read)


def check_sizes(artifacts: Artifacts, manifest: Manifest) -> None:
    """Every published file has the size that it was written with.

    Raises:
        DataError: one hasn't, or is missing.
    """
    if found := damages(artifacts, manifest, read=False):
        raise DataError(f"The prepared data is damaged: {found[0]}.", "Prepare the text again: ptk prepare")


def check_still(artifacts: Artifacts, manifest: Manifest) -> None:
    """The data that has been opened is what ``manifest`` describes: whole, and not replaced by a prepare meanwhile.

    Raises:
        DataError: a file is damaged, or a prepare has replaced it, or is doing it now.
    """
    try:
        # Without its validation, which for 200,000 input files takes a second.
        same = read_json(artifacts.manifest).get("fingerprint") == manifest.fingerprint
    except DataError:
        same = False
    if not same:
        raise DataError(
            f"The prepared data in {artifacts.root} was replaced while it was being opened.",
            "Run the command again once no ptk prepare is running there.",
        )
    check_sizes(artifacts, manifest)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write ``manifest``, complete or not at all."""
    write_json(path, redact_all(manifest.model_dump(mode="json", by_alias=True)))
