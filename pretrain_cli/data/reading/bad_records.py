"""Decides whether what can't be read of the input is left out, or ends the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pretrain_cli.data.reading.documents import HARMLESS_REASONS, Rejected, bad_record
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import count_of, exact

MOST_BAD = 0.1
"""Share of the records up to which ``data.on_error`` = "auto" leaves the bad ones out."""
NO_MISTAKE = {*HARMLESS_REASONS, "no_text_found"}
"""Reasons to reject a record that say nothing of how the files are read."""


@dataclass(frozen=True)
class Strictness:
    """Whether a file, and whether a record, that can't be read ends the command where it is met."""

    files: bool
    records: bool

    @classmethod
    def of(cls, on_error: str, files: int) -> Strictness:
        """As ``data.on_error`` says: with "auto" only that of ``files`` files which is the only one."""
        return cls(on_error == "fail" or (on_error == "auto" and files == 1), on_error == "fail")


@dataclass
class BadRecords:
    """What was met, and could not be used.

    Attributes:
        documents: with text.
        records: that are bad, within files, or the rest of one.
        files: that are bad as a whole.
        first, first_record: that is bad; and that isn't a file.
    """

    documents: int = 0
    records: int = 0
    files: int = 0
    first: Rejected | None = None
    first_record: Rejected | None = None

    def add(self, record: Rejected) -> None:
        """Count a record unless its reason is no mistake."""
        if record.reason in NO_MISTAKE:
            return
        self.first = self.first or record
        if record.reason == "unreadable_file":
            self.files += 1
        else:
            self.records += 1
            self.first_record = self.first_record or record

    def check(self) -> None:
        """Check that what is bad may be left out, where ``data.on_error`` is "auto".

        Raises:
            DataError: more than ``MOST_BAD`` of the records are bad, or nothing can be read.
        """
        bad, met = self.records + self.files, self.documents + self.records + self.files
        if self.first is None or (self.documents and self.records <= MOST_BAD * (met - self.files)):
            return
        error = bad_record(self.first)
        if bad == 1:
            raise error
        met_all = count_of(met, "document" if self.records or self.documents else "file")
        raise DataError(f"{exact(bad)} of {met_all} can't be used, the first: {error.message}", error.hint)

    def told(self, listed: Path) -> str:
        """A warning of bad records within files, which ``listed`` names all; empty for none."""
        if self.first_record is None:
            return ""
        met, first = count_of(self.documents + self.records, "document"), bad_record(self.first_record).message
        if self.records == 1:
            return f"1 of {met} can't be used and is left out: {first} It is listed in {listed}."
        bad = f"{exact(self.records)} of {met} can't be used and are left out"
        return f"{bad}, the first: {first} All are in {listed}."
