"""Defines what prepare returns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.accounting.ledger import add_up
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.data.messages import Messages
from pretrain_cli.formatting import exact
from pretrain_cli.manifest import Manifest
from pretrain_cli.manifest_records import ExtensionRecord, FileAccount, HeldOutRecord, TextColumn


@dataclass(frozen=True)
class PrepareResult:
    """What prepare made.

    ``bytes``: of the input, decompressed; ``text_bytes``: of documents; ``fill``: share of the rows' places that hold
    tokens; ``dropped``: documents by reason; ``held_out``: of what; ``input_files``: all files of the input;
    ``text_columns``: those that were chosen; ``extension``: what was added to the base's vocabulary; ``row_choice``:
    why rows are laid out so, where the documents' lengths decided; ``cleaning_speed``: cleaning step → MB of text
    that one core takes through it in a second, of the shards that were read for this output; ``warnings`` of what is
    lost, ``notes`` on how files were read.
    """

    documents: int
    bytes: int
    tokens: int
    rows: int
    fill: float
    dropped: dict[str, int]
    seconds: float
    megabytes_per_second: float
    tokenizer: str
    path: Path
    reused: bool
    train_rows: int
    validation_rows: int
    validation_documents: int
    held_out: HeldOutRecord | None = None
    input_files: FileAccount | None = None
    text_columns: dict[str, TextColumn] = field(default_factory=dict)
    text_bytes: int = 0
    extension: ExtensionRecord | None = None
    row_choice: str = ""
    cleaning_speed: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def result_of(
    manifest: Manifest, artifacts: Artifacts, started: float, *, reused: bool, counts: Sequence[ShardCounts] = ()
) -> PrepareResult:
    """The result of a prepare that packed all shards, with their ``counts``; ``started`` by ``time.perf_counter``."""
    train, validation, tokenizer = manifest.train, manifest.validation, manifest.tokenizer
    rows, tokens = train.rows + validation.rows, train.tokens + validation.tokens
    seconds = time.perf_counter() - started
    size = manifest.ledger.bytes.read
    return PrepareResult(
        documents=manifest.ledger.documents.kept,
        bytes=size,
        tokens=tokens,
        rows=rows,
        fill=tokens / max(1, rows * manifest.settings.sequence_length),
        dropped=dict(manifest.ledger.documents.dropped),
        seconds=seconds,
        megabytes_per_second=size / 1e6 / seconds,
        tokenizer=f"{tokenizer.source}, {exact(tokenizer.vocab_size)} entries, encoded by {tokenizer.engine}",
        path=artifacts.data,
        reused=reused,
        train_rows=train.rows,
        validation_rows=validation.rows,
        validation_documents=validation.documents,
        held_out=manifest.held_out,
        input_files=manifest.input_files,
        text_bytes=manifest.ledger.bytes.kept,
        text_columns=dict(manifest.text_columns),
        extension=manifest.tokenizer.extension,
        row_choice=manifest.statistics.row_choice,
        cleaning_speed=_cleaning_speed(counts),
        warnings=list(manifest.warnings),
        notes=list(manifest.notes),
    )


def result_of_shards(
    counts: list[ShardCounts], tokenizer: str, messages: Messages, artifacts: Artifacts, started: float
) -> PrepareResult:
    """The result of a prepare that encoded some shards and packed no rows."""
    seconds, size = time.perf_counter() - started, sum(count.bytes_in for count in counts)
    return PrepareResult(
        documents=sum(count.kept_documents for count in counts),
        bytes=size,
        tokens=sum(count.tokens for count in counts),
        rows=0,
        fill=0.0,
        dropped=add_up(count.dropped_documents for count in counts),
        seconds=seconds,
        megabytes_per_second=size / 1e6 / seconds,
        tokenizer=tokenizer,
        path=artifacts.data,
        reused=False,
        train_rows=0,
        validation_rows=0,
        validation_documents=0,
        text_bytes=sum(count.kept_bytes for count in counts),
        cleaning_speed=_cleaning_speed(counts),
        warnings=messages.warnings,
        notes=messages.notes,
    )


def _cleaning_speed(counts: Sequence[ShardCounts]) -> dict[str, float]:
    steps = dict.fromkeys(step for count in counts for step in count.cleaning)
    totals = {step: np.sum([count.cleaning.get(step, (0.0, 0.0)) for count in counts], axis=0) for step in steps}
    return {step: round(float(size / 1e6 / max(seconds, 1e-6)), 1) for step, (seconds, size) in totals.items() if size}
