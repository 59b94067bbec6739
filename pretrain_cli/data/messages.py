"""Tells the user what is lost or odd, and keeps what was told for the manifest."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.formatting import count
from pretrain_cli.progress import Progress

NOTES_SHOWN = 5


class Messages:
    """Warnings of one prepare.

    Attributes:
        warnings: what the user was told.
        notes: what was found out about single files; the first of them are warnings too.
    """

    def __init__(self, progress: Progress, manifest: Path) -> None:
        self._progress, self._manifest = progress, manifest
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._progress.warn(text)

    def add_notes(self, notes: list[str]) -> None:
        """Keep all, each once, and show the first of them."""
        self.notes = list(dict.fromkeys(notes))
        for note in self.notes[:NOTES_SHOWN]:
            self.warn(note)
        if len(self.notes) > NOTES_SHOWN:
            self.warn(f"… and {count(len(self.notes) - NOTES_SHOWN)} more like these: all are in {self._manifest}.")
