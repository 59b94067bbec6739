"""What an evaluation tells the other commands: report.json, a typed and versioned record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_cli.addresses import redact_all
from pretrain_cli.errors import ModelError
from pretrain_cli.records import Record, VersionedRecord, read_versioned
from pretrain_cli.storage import write_json

VERSION = 1
"""Of report.json's format."""
FILE, PAGE = "report.json", "report.html"
"""Names in the folder of an evaluation."""


class ReportedScore(Record):
    """A model's figures on one text; None where a figure isn't finite. The interval is 95%, (low, high)."""

    name: str
    bits_per_byte: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    bits_per_byte_interval: tuple[float, float] | None = None


class ReportedModel(Record):
    """A model's name and its figures on each text."""

    name: str
    texts: tuple[ReportedScore, ...] = ()


class EvaluationReport(VersionedRecord):
    """The part of report.json that other commands read; the file has much more. The evaluated model comes first."""

    version: int = VERSION
    models: tuple[ReportedModel, ...] = ()


def read_report(folder: Path) -> EvaluationReport | None:
    """The report in the folder of an evaluation; None where nothing was evaluated.

    Raises:
        DataError: it isn't JSON.
        ModelError: it is damaged, or of another version.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    return read_versioned(file, EvaluationReport, VERSION, VERSION, ModelError, "Evaluate again: ptk evaluate")


def write_report(folder: Path, values: dict[str, Any]) -> None:
    """Write ``values``, which have at least what `EvaluationReport` reads, with the version of the format."""
    write_json(folder / FILE, redact_all(values) | {"version": VERSION})
