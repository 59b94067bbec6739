"""Prepares text for training, step by step: from files to a tokenizer, packed rows and a manifest that adds up."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.config.model import Config
from pretrain_cli.data.accounting.ledger import dropped_documents, make_ledger
from pretrain_cli.data.accounting.manifest_building import build_manifest
from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.selection import Selection, select
from pretrain_cli.data.choosing.tokenizer_choice import find_tokenizer, tokenizer_key, tokenizer_record
from pretrain_cli.data.encoding.encode_text import encode_text
from pretrain_cli.data.encoding.encoded import EncodedDocuments, open_encoded
from pretrain_cli.data.encoding.engine_choice import check_sample, choose_encoder
from pretrain_cli.data.encoding.shard_files import collect_rejected
from pretrain_cli.data.encoding.shards import ShardCounts, ShardSettings
from pretrain_cli.data.fingerprint import hash_files
from pretrain_cli.data.messages import Messages
from pretrain_cli.data.reading.sources import Sources, find_sources, stdin_kept
from pretrain_cli.data.request import make_request, matching_output
from pretrain_cli.data.result import PrepareResult, result_of, result_of_shards
from pretrain_cli.data.rows.assembly import SplitCounts, write_split
from pretrain_cli.data.rows.layout import RowSettings, choose_rows
from pretrain_cli.data.staging import Staging
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.formatting import count, count_of, exact
from pretrain_cli.locking import lock
from pretrain_cli.manifest import Ledger
from pretrain_cli.processes import check_amount
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.records import record_files
from pretrain_cli.refusals import writing_to
from pretrain_cli.tokenizer.load import TokenizerInfo


def prepare(config: Config, artifacts: Artifacts, progress: Progress = SILENT, *, merge: bool = False) -> PrepareResult:
    """Read, clean, encode, pack and store the configured inputs.

    With ``data.shard`` only those shards are encoded; ``merge`` packs finished shards, and encodes none.

    A complete output that matches is kept (``reused``). One that doesn't is replaced, and what changed is named.
    Killed at any point, the next call continues from the finished shards, with the same bytes out.

    Raises:
        DataError: an input that is missing, empty, binary or damaged.
        UsageError: another process prepares here, or the folder can't be written.
    """
    started = time.perf_counter()
    check_amount("data.workers", config.data.workers)
    sources = find_sources(config.data)
    _check_choice_of_shards(config.data.shard, merge)
    with (
        lock(_locked_folder(artifacts, config.data.shard), "preparing"),
        writing_to(artifacts.root),
        stdin_kept(sources, artifacts.data) as sources,
    ):
        if config.data.shard:
            return _encode_some_shards(config, artifacts, progress, sources, started)
        return _prepare(config, artifacts, progress, sources, started, merge)


def _prepare(
    config: Config, artifacts: Artifacts, progress: Progress, sources: Sources, started: float, merge: bool
) -> PrepareResult:
    staging = Staging(artifacts)
    staging.finish()
    hashes = hash_files(sources.files, progress)
    request = make_request(config, sources, hashes)
    if previous := matching_output(artifacts, request, progress):
        _remove_work(artifacts)  # of a prepare that failed while it published this output
        return result_of(previous, artifacts, started, reused=True)

    messages, work = Messages(progress, artifacts.manifest), _work_folder(artifacts)
    key = tokenizer_key(request)
    tokenizer = find_tokenizer(config, artifacts, work, key, sources.files, progress)
    settings = _shard_settings(config, sources, tokenizer, messages)
    folder, counts = encode_text(config.data, sources.files, settings, tokenizer, work, progress, merge=merge)
    messages.add_notes([note for each in counts for note in each.notes])

    encoded = open_encoded(folder, counts, sources.files, settings.dtype)
    selection = select(encoded, config.data, sources.weights, tokenizer)
    _check_something_left(counts, selection)
    rows = choose_rows(config, tokenizer, messages.warn)
    staging.begin()
    train = _write("train", selection.train, encoded, rows, staging, progress)
    validation = _write("validation", selection.validation, encoded, rows, staging, progress)
    collect_rejected(folder, len(counts), staging.rejected)

    text = PackedText(counts, encoded, selection, rows, train, validation)
    ledger = make_ledger(text)
    _warn_of_losses(config, ledger, text, messages)
    record = tokenizer_record(config, tokenizer, settings.encoder.engine, key)
    seconds = time.perf_counter() - started
    manifest = build_manifest(
        config, sources, hashes, request, record, text, ledger, messages, seconds, record_files(tokenizer.folder)
    )
    staging.publish(tokenizer.folder, manifest)
    _remove_work(artifacts)
    return result_of(manifest, artifacts, started, reused=False)


def _encode_some_shards(
    config: Config, artifacts: Artifacts, progress: Progress, sources: Sources, started: float
) -> PrepareResult:
    # Only a tokenizer that is trained here needs all of the text: without one, a thousand machines needn't hash it.
    trains_tokenizer = not (config.tokenizer.path or config.model.base)
    hashes = hash_files(sources.files, progress) if trains_tokenizer else [""] * len(sources.files)
    request = make_request(config, sources, hashes)
    if trains_tokenizer and (previous := matching_output(artifacts, request, progress)):
        return result_of(previous, artifacts, started, reused=True)

    messages, work = Messages(progress, artifacts.manifest), _work_folder(artifacts)
    tokenizer = find_tokenizer(config, artifacts, work, tokenizer_key(request), sources.files, progress)
    settings = _shard_settings(config, sources, tokenizer, messages)
    _, counts = encode_text(config.data, sources.files, settings, tokenizer, work, progress, merge=False)
    messages.add_notes([note for each in counts for note in each.notes])
    progress.note("These shards are finished. Once all are, ptk prepare --merge packs the rows.")
    entries = f"{exact(tokenizer.vocab_size)} entries, encoded by {settings.encoder.engine}"
    return result_of_shards(counts, entries, messages.warnings, artifacts, started)


def _check_choice_of_shards(chosen: str, merge: bool) -> None:
    if not chosen:
        return
    number, total = map(int, chosen.split("/"))
    if not total or number > total:
        raise UsageError(
            f"--shard {chosen} names no shards.", "To split the shards among 8 machines, use 0/8 to 7/8; 8/8 means 0/8."
        )
    if merge:
        raise UsageError(
            "--merge packs all shards, so it can't go with --shard.", "Run --merge alone, once all shards are finished."
        )


def _locked_folder(artifacts: Artifacts, chosen: str) -> Path:
    """Machines with different shards work side by side, each with its own lock; only one process packs."""
    return artifacts.data / f".shards-{chosen.replace('/', '-of-')}" if chosen else artifacts.data


def _work_folder(artifacts: Artifacts) -> Path:
    """For what isn't complete: tokenizer and shards."""
    work = artifacts.data / ".work"
    work.mkdir(parents=True, exist_ok=True)
    return work


def _remove_work(artifacts: Artifacts) -> None:
    for folder in (artifacts.data / ".work", *artifacts.data.glob(".shards-*")):
        shutil.rmtree(folder, ignore_errors=True)


def _shard_settings(config: Config, sources: Sources, tokenizer: TokenizerInfo, messages: Messages) -> ShardSettings:
    data = config.data
    sample = check_sample(sources.files, config)
    encoder, reason = choose_encoder(tokenizer.file, config.tokenizer.engine, data.parse_special_tokens, sample)
    if reason:
        messages.warn(f"{reason}: the engine tokenizers encodes, which is slower.")
    return ShardSettings(
        encoder=encoder,
        dtype=tokenizer.id_dtype,
        separator=data.separator,
        column=data.text_column,
        encoding=data.encoding,
        on_error=data.on_error,
        cleaning=data.cleaning,
        near_dedup=data.near_dedup,
        max_record_bytes=data.max_record_bytes,
    )


def _check_something_left(counts: list[ShardCounts], selection: Selection) -> None:
    if not len(selection.train.documents):
        dropped = dropped_documents(counts, selection)
        reasons = ", ".join(f"{count(number)} {reason}" for reason, number in dropped.items())
        raise DataError(
            f"No text is left to train on ({reasons or 'no documents found'}).",
            "Check data.cleaning, or give more text.",
        )


def _write(
    split: str,
    ranges: DocumentRanges,
    encoded: EncodedDocuments,
    rows: RowSettings,
    staging: Staging,
    progress: Progress,
) -> SplitCounts:
    tokens = ranges.tokens.sum() + rows.border_tokens * len(ranges.tokens)
    progress.stage(f"packing {split}", float(tokens), "tokens")
    counts = write_split(ranges, encoded, rows, staging.split(split), lambda done: progress.advance(done))
    progress.end_stage()
    return counts


def _warn_of_losses(config: Config, ledger: Ledger, text: PackedText, messages: Messages) -> None:
    if config.data.validation_fraction and not text.validation.rows:
        length = exact(text.rows.sequence_length)
        messages.warn(f"The text is too small for a validation row of {length} tokens: none is held out.")
    unwritable = ledger.unwritable
    if unwritable.bytes:
        lost, documents = count_of(unwritable.bytes, "byte"), count_of(unwritable.documents, "document")
        messages.warn(f"The tokenizer has no token for {lost} in {documents}: they are missing from the rows.")
