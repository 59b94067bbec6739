"""Puts the manifest of a finished prepare together."""

from __future__ import annotations

from pretrain_cli.config.model import Config
from pretrain_cli.data.accounting.figures import make_statistics, source_record, split_record
from pretrain_cli.data.accounting.held_out import held_out_record
from pretrain_cli.data.accounting.ledger import add_up
from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.data.messages import Messages
from pretrain_cli.data.reading.sources import Sources
from pretrain_cli.data.request import Request
from pretrain_cli.manifest import InputRecord, Ledger, Manifest, RowLayout, SplitRecord, TokenizerRecord
from pretrain_cli.records import FileRecord


def build_manifest(
    config: Config,
    sources: Sources,
    hashes: list[str],
    request: Request,
    tokenizer: TokenizerRecord,
    text: PackedText,
    ledger: Ledger,
    messages: Messages,
    seconds: float,
    tokenizer_files: dict[str, FileRecord],
) -> Manifest:
    """All that the other stages may know; ``hashes`` of the sources' files, ``seconds`` since the start."""
    layout = _layout(config, text)
    held_bytes = text.selection.validation_bytes
    train = split_record(text.train, ledger.bytes.kept - held_bytes)
    validation = split_record(text.validation, held_bytes)
    inputs = zip(sources.paths, sources.files, hashes, strict=True)
    return Manifest(
        settings=layout,
        inputs=tuple(InputRecord(path=path, size=file.size, hash=digest) for path, file, digest in inputs),
        tokenizer=tokenizer,
        base=config.model.base,
        train=train,
        validation=validation,
        held_out=held_out_record(text),
        sources={name: source_record(index, text) for index, name in enumerate(sources.names)},
        statistics=make_statistics(ledger, text),
        rejected=add_up(count.rejected for count in text.counts),
        ledger=ledger,
        request=request,
        warnings=tuple(messages.warnings),
        notes=tuple(messages.notes),
        files=_files(text, tokenizer_files),
        fingerprint=_fingerprint(layout, tokenizer, train, validation, hashes),
        seconds=round(seconds, 3),
    )


def _files(text: PackedText, tokenizer: dict[str, FileRecord]) -> dict[str, FileRecord]:
    folders = {"tokenizer": tokenizer, "data/train": text.train.files, "data/validation": text.validation.files}
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
    )


def _fingerprint(
    layout: RowLayout, tokenizer: TokenizerRecord, train: SplitRecord, validation: SplitRecord, hashes: list[str]
) -> str:
    """Names the rows by all that they follow from. The tokenizer's key, which names its own request, isn't in it."""
    return fingerprint(
        {
            "settings": layout.model_dump(mode="json"),
            "tokenizer": tokenizer.model_dump(mode="json", exclude={"key", "longest_word"}),
            "train": train.model_dump(mode="json"),
            "validation": validation.model_dump(mode="json"),
            "inputs": [*hashes],
        }
    )
