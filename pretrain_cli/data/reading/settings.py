"""Says how input files are read, and collects what is found out while reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.charsets import Encoding
from pretrain_cli.data.reading.documents import Rejected
from pretrain_cli.data.reading.text_column import ColumnChoice

MAX_RECORD_BYTES: int = DataConfig.model_fields["max_record_bytes"].default


def add_numbers(totals: dict[str, list[int]], name: str, numbers: Sequence[int]) -> None:
    """Add ``numbers`` to those that ``totals`` has for ``name``, each to its own."""
    before = totals.get(name, [0] * len(numbers))
    totals[name] = [old + new for old, new in zip(before, numbers, strict=True)]


@dataclass
class ReadSettings:
    """What shapes reading.

    Attributes:
        separator: between the documents of a plain text file; "" where a file is a document.
        column: that holds the text of a record, or "auto".
        encoding: of plain text, or "auto".
        max_record_bytes: of one record; a longer one is rejected before it is in memory.
        notes: what the user should know of the files, in sentences.
        doubts: what may be wrong in how they are read, in sentences.
        skipped_bytes: bytes of the files that aren't text, by reason.
        separated: plain text files with the separator in them, and without.
        columns: the text columns that were chosen: name → records looked at, with a text there, with null.
    """

    separator: str = ""
    column: str = "auto"
    encoding: str = "auto"
    max_record_bytes: int = MAX_RECORD_BYTES
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    skipped_bytes: dict[str, int] = field(default_factory=dict)
    separated: list[int] = field(default_factory=lambda: [0, 0])
    columns: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DataConfig) -> ReadSettings:
        """As the config says."""
        return cls(data.separator, data.text_column, data.encoding, data.max_record_bytes)

    def skip(self, reason: str, size: int) -> None:
        if size:
            self.skipped_bytes[reason] = self.skipped_bytes.get(reason, 0) + size

    def say_guess(self, path: str, encoding: Encoding) -> None:
        """Note an encoding that was guessed, and warn where the guess may be wrong."""
        if not encoding.guessed:
            return
        words = f" ({', '.join(encoding.words)})" if encoding.words else ""
        read_as = f"{path} isn't UTF-8: read as {encoding.name}{words}"
        if encoding.doubt:
            self.doubts.append(
                f"{read_as}, which may be wrong: {encoding.doubt}. If you know its encoding: --set data.encoding=NAME."
            )
        else:
            self.notes.append(f"{read_as}.")

    def take_column(self, choice: ColumnChoice | None, first: bool = True) -> str:
        """The name of the chosen column, which is kept with its share for a file's ``first`` span."""
        if choice is None:
            return self.column
        if first:
            add_numbers(self.columns, choice.name, (choice.sampled, choice.filled, choice.nulls))
        return choice.name

    def too_long(self, path: str, line: int, offset: int, size: int) -> Rejected:
        """The record of more than ``max_record_bytes``, of which ``size`` were read."""
        return Rejected(path, line, offset, size, "too_long", self.limit)

    @property
    def limit(self) -> str:
        """What a record that is too long breaks, in words."""
        return f"more than {self.max_record_bytes:,} bytes (data.max_record_bytes)"
