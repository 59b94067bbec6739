"""Puts the manifest of a finished prepare together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import xxhash

from pretrain_cli.config.model import Config
from pretrain_cli.data.accounting.figures import split_record
from pretrain_cli.data.accounting.files import file_account
from pretrain_cli.data.accounting.ledger import add_up
from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.choosing.selection import REASONS
from pretrain_cli.data.fingerprint import Hashes, fingerprint
from pretrain_cli.data.input_list import Inputs
from pretrain_cli.data.messages import Messages
from pretrain_cli.data.reading.settings import add_numbers
from pretrain_cli.data.request import BASE_TOKENIZER, Request
from pretrain_cli.manifest import INPUTS_SHOWN, Manifest
from pretrain_cli.manifest_records import (
    ByteLedger,
    InputRecord,
    Ledger,
    RowLayout,
    SourceRecord,
    SplitRecord,
    Statistics,
    TextColumn,
    TokenizerRecord,
)
from pretrain_cli.records import FileRecord


def build_manifest(
    config: Config,
    inputs: Inputs,
    request: Request,
    tokenizer: TokenizerRecord,
    text: PackedText,
    ledger: Ledger,
    messages: Messages,
    seconds: float,
    published: dict[str, FileRecord],
) -> Manifest:
    """All that the other stages may know.

    ``seconds`` count from the start, ``published`` are the files beside the rows.
    """
    sources = inputs.sources
    layout = _layout(config, text)
    held_bytes = text.selection.validation.bytes
    train = split_record(text.train, ledger.bytes.kept - held_bytes)
    validation = split_record(text.validation, held_bytes)
    listed = itertools.islice(zip(sources.paths(), sources.files.sizes, inputs.hashes, strict=True), INPUTS_SHOWN)
    return Manifest(
        settings=layout,
        inputs=tuple(InputRecord(path=path, size=size, hash=digest.tobytes().hex()) for path, size, digest in listed),
        inputs_total=len(sources.files),
        inputs_stamp=inputs.stamp,
        inputs_hashed_ns=inputs.hashed_ns,
        tokenizer=tokenizer,
        base=config.model.base,
        base_tokenizer=str(request.get(BASE_TOKENIZER, "")),
        train=train,
        validation=validation,
        held_out=text.figures.held_out,
        sources=_sources(config, text, sources.names),
        input_files=file_account(sources.account, text.counts),
        text_columns=_text_columns(text),
        statistics=_statistics(ledger, text),
        rejected=add_up(count.rejected for count in text.counts),
        ledger=ledger,
        request=request,
        warnings=tuple(messages.warnings),
        notes=tuple(messages.notes),
        files={**published, **_row_files(text)},
        fingerprint=_fingerprint(
            layout, tokenizer, train, validation, inputs.hashes, list(text.train.parts) if config.data.stages else []
        ),
        seconds=round(seconds, 3),
    )


def _sources(config: Config, text: PackedText, names: Sequence[str]) -> dict[str, SourceRecord]:
    rows = text.train.parts if config.data.stages else (0,) * len(names)
    found = (text.figures.sources.get(at, SourceRecord()) for at in range(len(names)))
    return {
        name: record.model_copy(update={"rows": many}) for name, record, many in zip(names, found, rows, strict=True)
    }


def _statistics(ledger: Ledger, text: PackedText) -> Statistics:
    return Statistics(
        fill=text.tokens / max(1, text.places),
        bytes_per_token=_encoded_bytes(ledger.bytes) / max(1, ledger.tokens.encoded),
        pieces_per_row=(text.train.pieces + text.validation.pieces) / max(1, text.train.rows + text.validation.rows),
        document_tokens=text.figures.document_tokens,
        row_choice=text.rows.reason,
    )


def _encoded_bytes(ledger: ByteLedger) -> int:
    """Bytes that gave tokens: all but those dropped or changed before they were encoded."""
    before = sum(size for reason, size in ledger.dropped.items() if reason not in REASONS)
    return ledger.read - before - ledger.changed_by_cleaning


def _text_columns(text: PackedText) -> dict[str, TextColumn]:
    found: dict[str, list[int]] = {}
    for count in text.counts:
        for name, numbers in count.columns.items():
            add_numbers(found, name, numbers)
    return {
        name: TextColumn(files=files, sampled=sampled, filled=filled, nulls=nulls)
        for name, (files, sampled, filled, nulls) in sorted(found.items())
    }


def _row_files(text: PackedText) -> dict[str, FileRecord]:
    folders = {"data/train": text.train.files, "data/validation": text.validation.files}
    return {f"{folder}/{name}": record for folder, files in folders.items() for name, record in files.items()}


def _layout(config: Config, text: PackedText) -> RowLayout:
    rows = text.rows
    return RowLayout(
        sequence_length=rows.sequence_length,
        packing=rows.packing,
        add_bos=rows.bos is not None,
        add_eos=rows.eos is not None,
        dtype=rows.dtype,
        cleaning=config.data.cleaning,
        split=text.selection.split,
        validation_fraction=config.data.validation_fraction,
        fim_rate=config.data.fim_rate,
    )


def _fingerprint(
    layout: RowLayout,
    tokenizer: TokenizerRecord,
    train: SplitRecord,
    validation: SplitRecord,
    hashes: Hashes,
    alone: list[int],
) -> str:
    """Names the rows by all that they follow from. The tokenizer's key, which names its own request, isn't in it."""
    return fingerprint(
        {
            "settings": layout.model_dump(mode="json", exclude=set() if layout.fim_rate else {"fim_rate"}),
            "tokenizer": tokenizer.model_dump(mode="json", exclude={"key", "longest_word", "extension"}),
            "train": train.model_dump(mode="json"),
            "validation": validation.model_dump(mode="json"),
            "inputs": str(xxhash.xxh3_128_hexdigest(hashes.tobytes())),
            **({"rows of each source": [*alone]} if alone else {}),
        }
    )
