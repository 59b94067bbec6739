"""What an evaluation tells the other commands: report.json, a typed and versioned record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain_cli.addresses import redact_all
from pretrain_cli.errors import ModelError, PtkError
from pretrain_cli.records import Record, VersionedRecord, read_versioned
from pretrain_cli.storage import write_sealed_json

VERSION = 1
"""Of report.json's format."""
FILE, PAGE = "report.json", "report.html"
"""Names in the folder of an evaluation."""
REPORTS = "report*.json"
"""The names of all reports there: those on other texts stand beside the first."""
LONGEST_NAME = 60


class ReportedScore(Record):
    """A model's figures on one text; None where a figure isn't finite. The interval is 95%, (low, high)."""

    name: str
    bits_per_byte: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    bits_per_byte_interval: tuple[float, float] | None = None


class ReportedSettings(Record):
    """How a model was measured; ``sample_bytes``: of each text, 0 for all of it."""

    sample_bytes: int = 0


class ReportedModel(Record):
    """A model's name and its figures on each text."""

    name: str
    texts: tuple[ReportedScore, ...] = ()
    settings: ReportedSettings = ReportedSettings()


class EvaluationReport(VersionedRecord):
    """The part of report.json that other commands read; the file has much more. The evaluated model comes first."""

    version: int = VERSION
    models: tuple[ReportedModel, ...] = ()


def free_name(folder: Path, texts: Sequence[str], sample_bytes: int) -> str:
    """The name, without an ending, of a report on ``texts``.

    The first one's, unless that has figures which the new one lacks: of another text, or of all of a text of which now
    ``sample_bytes`` are taken. Those stay.
    """
    try:
        before = read_report(folder)
    except PtkError:  # damaged, or of an older version: nothing that can be read is lost
        before = None
    if before is None or not before.models:
        return Path(FILE).stem
    first = before.models[0]
    whole = sample_bytes and not first.settings.sample_bytes
    if not whole and {text.name for text in first.texts} <= {*texts}:
        return Path(FILE).stem
    named = re.sub(r"[^\w.]+", "-", "-".join(texts))[:LONGEST_NAME].strip("-.")
    return f"{Path(FILE).stem}-{named}{'-sample' if sample_bytes else ''}"


def read_report(folder: Path, name: str = FILE) -> EvaluationReport | None:
    """The report in the folder of an evaluation, the first or the one with that name; None where there is none.

    Raises:
        DataError: it isn't JSON.
        ModelError: it is damaged, or of another version.
    """
    file = folder / name
    if not file.is_file():
        return None
    return read_versioned(file, EvaluationReport, VERSION, VERSION, ModelError, "Evaluate again: ptk evaluate")


def write_report(file: Path, values: dict[str, Any]) -> None:
    """Write ``values``, which have at least what `EvaluationReport` reads, with the version of the format."""
    write_sealed_json(file, redact_all(values) | {"version": VERSION})
