"""Reads files as prepare does, and gives what tests compare: texts, rejected records and notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pretrain_cli.data.reading.documents import DocumentBatch, Rejected
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.inputs import find_files
from pretrain_cli.data.reading.read import read
from pretrain_cli.data.reading.settings import ReadSettings


@dataclass
class Found:
    """What was read: texts (parts joined), rejected records, and the settings with notes and columns."""

    texts: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    settings: ReadSettings = field(default_factory=ReadSettings)

    @property
    def columns(self) -> dict[str, list[int]]:
        return self.settings.columns


def read_path(path: Path | str, **settings: str) -> Found:
    """All that the files of ``path`` give."""
    found, parts = Found(settings=ReadSettings(**settings)), ""
    for file in find_files([str(path)]):
        for record in read(Span(file), found.settings):
            if isinstance(record, Rejected):
                found.rejected.append(record)
            elif isinstance(record, DocumentBatch):
                found.texts += record.texts
            else:
                parts += record.text
                if record.final:
                    found.texts.append(parts)
                    parts = ""
    return found
