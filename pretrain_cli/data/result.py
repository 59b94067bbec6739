"""Defines what prepare returns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.accounting.ledger import add_up
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.formatting import exact
from pretrain_cli.manifest import HeldOutRecord, Manifest


@dataclass(frozen=True)
class PrepareResult:
    """What prepare made.

    ``fill``: share of the rows' places that hold tokens; ``dropped``: documents by reason; ``held_out``: of what.
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
    warnings: list[str] = field(default_factory=list)


def result_of(manifest: Manifest, artifacts: Artifacts, started: float, *, reused: bool) -> PrepareResult:
    """The result of a prepare that packed all shards; ``started`` by ``time.perf_counter``."""
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
        warnings=list(manifest.warnings),
    )


def result_of_shards(
    counts: list[ShardCounts], tokenizer: str, warnings: list[str], artifacts: Artifacts, started: float
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
        warnings=warnings,
    )
