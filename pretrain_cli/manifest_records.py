"""The parts of the manifest: typed records of files, splits, sources, tokenizer and ledger."""

from __future__ import annotations

from pydantic import Field

from pretrain_cli.formatting import count_of, exact
from pretrain_cli.records import Record


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
    fim_rate: float = 0.0


class InputRecord(Record):
    """One input file: its path as given, its size in bytes as stored, and the xxh3-128 of those bytes."""

    path: str
    size: int
    hash: str


class RoundTripRecord(Record):
    """What is lost of a sample of the text when it becomes ids and text again.

    Attributes:
        texts: in the sample.
        changed: texts that don't come back as they were.
        characters: in the sample.
        lost: characters of it that don't come back, or come back as others.
        unknown: tokens that stand for what the vocabulary doesn't have.
    """

    texts: int = 0
    changed: int = 0
    characters: int = 0
    lost: int = 0
    unknown: int = 0

    @property
    def share(self) -> float:
        """Of the characters, those that are lost."""
        return self.lost / max(1, self.characters)


class TokenCount(Record):
    """A sample of a text, in bytes of UTF-8 and in tokens of the base's tokenizer and of the one that made the rows."""

    bytes: int
    base_tokens: int
    tokens: int

    def told(self) -> str:
        """In words: "0.412 tokens a byte instead of 0.561 (-27%)"."""
        size = max(1, self.bytes)
        change = self.tokens / max(1, self.base_tokens) - 1
        return f"{self.tokens / size:.3f} tokens a byte instead of {self.base_tokens / size:.3f} ({change:+.0%})"


class ExtensionRecord(Record):
    """Entries that were added to a base's tokenizer.

    Attributes:
        first: id of the first one: those before it are the base's.
        added: how many.
        characters: of them, those that stand for a character which the base writes in bytes.
        used: of them, those that a sample of the text uses.
        sources: name of a source → tokens before and after, of a sample of it.
    """

    first: int
    added: int
    characters: int = 0
    used: int = 0
    sources: dict[str, TokenCount] = {}


class TokenizerRecord(Record):
    """The tokenizer that made the rows.

    Attributes:
        fingerprint: names what decides ids.
        vocab_size: number of ids.
        engine: what encoded the text.
        source: where it comes from, in words.
        key: names what it depends on.
        longest_word: characters after which a word is split before its bytes are merged; 0: never.
        round_trip: what is lost of a sample of the text; None in rows of an older version.
        extension: what was added to the base's; None where nothing was.
    """

    fingerprint: str
    vocab_size: int
    engine: str = ""
    source: str = ""
    key: str = ""
    longest_word: int = 0
    round_trip: RoundTripRecord | None = None
    extension: ExtensionRecord | None = None


class SplitRecord(Record):
    """What one split holds. ``bytes`` are of UTF-8 text."""

    rows: int = 0
    tokens: int = 0
    documents: int = 0
    bytes: int = 0

    def fill(self, sequence_length: int) -> float:
        """Share of the rows' places that hold text; the rest is padding."""
        return self.tokens / (self.rows * sequence_length) if self.rows and self.tokens else 1.0

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
    """What one source gave to train on, and what of it is held out. A document taken twice counts twice.

    ``rows``: training rows of this source alone, where stages were asked for; they come in the order of the sources.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    validation_documents: int = 0
    validation_tokens: int = 0
    validation_bytes: int = 0
    rows: int = 0


class TextColumn(Record):
    """A column that was taken for the text because most records of a sample have a text there.

    Attributes:
        files: that it was chosen for.
        sampled: records looked at in them.
        filled: of those, with a text in it.
        nulls: of those, with null in it.
    """

    files: int = 1
    sampled: int = 0
    filled: int = 0
    nulls: int = 0

    def told(self) -> str:
        """In words: "in 59 of 60 records looked at, 1 null"."""
        nulls = f", {count_of(self.nulls, 'null')}" if self.nulls else ""
        files = f" of {count_of(self.files, 'file')}" if self.files > 1 else ""
        return f"in {exact(self.filled)} of {count_of(self.sampled, 'record')} looked at{files}{nulls}"


class FileGroup(Record):
    """Files of one kind, and their bytes as stored."""

    files: int
    bytes: int


class SkippedFiles(FileGroup):
    """Files of one kind that weren't read, all for the same reason; ``examples`` are the paths of the first.

    ``kind`` is the ending, or the name of a folder of which nothing is read.
    """

    reason: str
    kind: str
    examples: tuple[str, ...] = ()


class FileAccount(Record):
    """The files of the input: ``files`` = those of ``read``, by kind, + those of ``skipped``.

    Attributes:
        folders: how many of the inputs are folders.
        files: all files in them, also through links, and those named alone.
        read: ending → files that gave text.
        skipped: files that gave none, by reason and kind.
        unreadable_folders: folders that may not be listed; what they hold isn't known.
        linked_folders: links to folders that are read already.
    """

    folders: int = 0
    files: int = 0
    read: dict[str, FileGroup] = {}
    skipped: tuple[SkippedFiles, ...] = ()
    unreadable_folders: tuple[str, ...] = ()
    linked_folders: tuple[str, ...] = ()

    @property
    def read_files(self) -> int:
        """Of all kinds."""
        return sum(group.files for group in self.read.values())

    @property
    def skipped_files(self) -> int:
        """For all reasons."""
        return sum(group.files for group in self.skipped)

    def by_reason(self) -> dict[str, dict[str, int]]:
        """Reason → kind → files that weren't read."""
        found: dict[str, dict[str, int]] = {}
        for group in self.skipped:
            found.setdefault(group.reason, {})[group.kind] = group.files
        return found


class Statistics(Record):
    """Figures of all rows.

    Attributes:
        fill: share of the rows' places that hold tokens.
        bytes_per_token: of the encoded text.
        pieces_per_row: documents, or pieces of one, in a row on average.
        document_tokens: documents by the next power of two of their tokens, BOS and EOS counted.
        row_choice: why the rows are laid out so, where it follows from the documents' lengths.
    """

    fill: float
    bytes_per_token: float
    pieces_per_row: float
    document_tokens: dict[str, int] = {}
    row_choice: str = ""


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
    """``encoded`` + ``marks`` + ``repeated`` + ``rearranged`` = ``made`` = ``train`` + ``validation`` + dropped.

    ``marks`` are BOS and EOS around each document; ``rearranged`` is what `data.fim_rate` adds: control tokens, and the
    pieces of words that are cut.
    """

    encoded: int
    marks: int
    repeated: int
    rearranged: int = 0
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
