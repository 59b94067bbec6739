"""Tells the user what is lost, and how files were read, and keeps what was told for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.formatting import count
from pretrain_cli.progress import Progress

NOTES_SHOWN = 5


class Messages:
    """Warnings and notes of one prepare.

    Attributes:
        warnings: what is lost, or may be wrong.
        notes: how single files were read, such as an encoding or a separator that was found; the first are shown.
    """

    def __init__(self, progress: Progress, manifest: Path, rejected: Path) -> None:
        self._progress, self._manifest, self._rejected = progress, manifest, rejected
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._progress.warn(text)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._progress.note(text)

    def add(self, counts: Sequence[ShardCounts]) -> None:
        """Tell what was found out about single files: losses and doubts as warnings, the first of the rest as notes."""
        doubts = [*dict.fromkeys(doubt for each in counts for doubt in each.doubts)]
        notes = [*dict.fromkeys(note for each in counts for note in each.notes)]
        self._warn_of_some([*dict.fromkeys(loss for each in counts for loss in each.losses)], self._rejected)
        self._warn_of_some(doubts, self._manifest)
        self.notes = [*doubts[NOTES_SHOWN:], *notes]
        for note in notes[:NOTES_SHOWN]:
            self._progress.note(note)
        if len(notes) > NOTES_SHOWN:
            more = count(len(notes) - NOTES_SHOWN)
            self._progress.note(f"… and {more} more like these: all are in {self._manifest}.")

    def _warn_of_some(self, warnings: Sequence[str], listed: Path) -> None:
        for warning in warnings[:NOTES_SHOWN]:
            self.warn(warning)
        if len(warnings) > NOTES_SHOWN:
            self.warn(f"… and {count(len(warnings) - NOTES_SHOWN)} more like these: all are in {listed}.")
