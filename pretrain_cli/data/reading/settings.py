"""Says how input files are read, and collects what is found out while reading them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.documents import Rejected

MAX_RECORD_BYTES: int = DataConfig.model_fields["max_record_bytes"].default


@dataclass
class ReadSettings:
    """What shapes reading.

    Attributes:
        separator: between the documents of a plain text file; "" where a file is a document.
        column: that holds the text of a record, or "auto".
        encoding: of plain text, or "auto".
        max_record_bytes: of one record; a longer one is rejected before it is in memory.
        notes: what the user should know of the files, in sentences.
        skipped_bytes: bytes of the files that aren't text, by reason.
    """

    separator: str = ""
    column: str = "auto"
    encoding: str = "auto"
    max_record_bytes: int = MAX_RECORD_BYTES
    notes: list[str] = field(default_factory=list)
    skipped_bytes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DataConfig) -> ReadSettings:
        """As the config says."""
        return cls(data.separator, data.text_column, data.encoding, data.max_record_bytes)

    def skip(self, reason: str, size: int) -> None:
        if size:
            self.skipped_bytes[reason] = self.skipped_bytes.get(reason, 0) + size

    def too_long(self, path: str, line: int, offset: int, size: int) -> Rejected:
        """The record of more than ``max_record_bytes``, of which ``size`` were read."""
        return Rejected(path, line, offset, size, "too_long", self.limit)

    @property
    def limit(self) -> str:
        """What a record that is too long breaks, in words."""
        return f"more than {self.max_record_bytes:,} bytes (data.max_record_bytes)"
