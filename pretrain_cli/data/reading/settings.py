"""Says how input files are read, and collects what is found out while reading them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pretrain_cli.config.model import DataConfig


@dataclass
class ReadSettings:
    """What shapes reading.

    Attributes:
        separator: between the documents of a plain text file; "" where a file is a document.
        column: that holds the text of a record, or "auto".
        encoding: of plain text, or "auto".
        notes: what the user should know of the files, in sentences.
        skipped_bytes: bytes of the files that aren't text, by reason.
    """

    separator: str = ""
    column: str = "auto"
    encoding: str = "auto"
    notes: list[str] = field(default_factory=list)
    skipped_bytes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DataConfig) -> ReadSettings:
        """As the config says."""
        return cls(data.separator, data.text_column, data.encoding)

    def skip(self, reason: str, size: int) -> None:
        if size:
            self.skipped_bytes[reason] = self.skipped_bytes.get(reason, 0) + size
