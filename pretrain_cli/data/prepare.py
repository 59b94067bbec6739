"""Prepares text for training, step by step: from files to a tokenizer, packed rows and a manifest that adds up."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base, whole_name
from pretrain_cli.config.load import changed
from pretrain_cli.config.model import Config
from pretrain_cli.data.accounting.figures import add_figures
from pretrain_cli.data.accounting.file_warnings import check_bad, check_separator, lost_files
from pretrain_cli.data.accounting.files import renewed_account
from pretrain_cli.data.accounting.ledger import dropped_documents, make_ledger
from pretrain_cli.data.accounting.manifest_building import build_manifest
from pretrain_cli.data.accounting.packed_text import PackedText
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.choosing.replay import add_replay
from pretrain_cli.data.choosing.selection import Selection, select
from pretrain_cli.data.choosing.tokenizer_choice import (
    find_tokenizer,
    measure_round_trip,
    tokenizer_key,
    tokenizer_record,
)
from pretrain_cli.data.choosing.vocabulary import check_extension
from pretrain_cli.data.encoding.encode_text import encode_text
from pretrain_cli.data.encoding.encoded import open_encoded
from pretrain_cli.data.encoding.engine_choice import check_sample, choose_encoder
from pretrain_cli.data.encoding.shard_store import collect_rejected
from pretrain_cli.data.encoding.shards import ShardCounts, ShardSettings
from pretrain_cli.data.input_list import find_inputs, unhashed_inputs, write_inputs
from pretrain_cli.data.messages import Messages
from pretrain_cli.data.ours import clear_links, copy_edited, remove_work
from pretrain_cli.data.reading.bad_records import Strictness
from pretrain_cli.data.reading.sources import Sources, check_stages, find_sources, pipes_kept
from pretrain_cli.data.request import make_request, matching_output
from pretrain_cli.data.result import PrepareResult, result_of, result_of_shards
from pretrain_cli.data.rows.assembly import SplitCounts, write_split
from pretrain_cli.data.rows.layout import RowSettings, choose_rows
from pretrain_cli.data.rows.middles import Middles, check_middles, open_middles
from pretrain_cli.data.sharing import bring_record, send_data
from pretrain_cli.data.staging import Staging
from pretrain_cli.errors import DataError, UsageError
from pretrain_cli.formatting import count, count_of, exact
from pretrain_cli.locking import lock
from pretrain_cli.manifest import LISTS, REJECTED
from pretrain_cli.manifest_records import Ledger, RoundTripRecord
from pretrain_cli.processes import check_amount
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.records import record_files
from pretrain_cli.refusals import check_no_links, writing_to
from pretrain_cli.tokenizer.load import TokenizerInfo
from pretrain_cli.tokenizer.round_trip import FLATTERS, told


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
    if config.model.base:
        config = changed(config, model__base=whole_name(config.model.base))
    if Path(config.model.base).is_absolute():
        find_base(config.model.base, artifacts)  # what is wrong with it is said before the text is read
    check_extension(config)
    if artifacts.remote:
        bring_record(artifacts, progress)
    sources = find_sources(config.data, artifacts.root)
    _check_choice_of_shards(config.data.shard, merge)
    with (
        lock(_locked_folder(artifacts, config.data.shard), "preparing"),
        writing_to(artifacts.root),
        pipes_kept(sources, artifacts.data) as sources,
    ):
        sources = add_replay(sources, config, artifacts, progress)
        if config.data.shard:
            return _encode_some_shards(config, artifacts, progress, sources, started)
        result = _prepare(config, artifacts, progress, sources, started, merge)
        if artifacts.remote:
            send_data(artifacts, progress)
        return result


def _prepare(
    config: Config, artifacts: Artifacts, progress: Progress, sources: Sources, started: float, merge: bool
) -> PrepareResult:
    staging = Staging(artifacts)
    staging.finish()
    inputs = find_inputs(sources, artifacts, progress)
    request = make_request(config, inputs, artifacts)
    if previous := matching_output(artifacts, request, inputs, progress):
        remove_work(artifacts)  # of a prepare that failed while it published this output
        account = renewed_account(sources.account, previous.input_files)
        return result_of(previous.model_copy(update={"input_files": account}), artifacts, started, reused=True)

    staging.check()
    check_stages(config.data, sources)
    if config.model.base and config.tokenizer.path:
        find_base(config.model.base, artifacts)  # otherwise its tokenizer is looked for, and it with that
    messages, work = Messages(progress, artifacts.manifest, artifacts.rejected), _work_folder(artifacts)
    key = tokenizer_key(request)
    tokenizer = find_tokenizer(config, artifacts, work, key, sources, progress)
    middle_tokens = check_middles(config, tokenizer)
    sample = check_sample(sources.files, config)
    settings = _shard_settings(config, tokenizer, messages, sample, len(sources.files))
    store, plan, counts = encode_text(
        config.data, sources.files, settings, tokenizer, work, progress, merge=merge, remote=artifacts.remote
    )
    messages.add(counts)
    check_separator(config.data, counts, messages.note)
    rejected = work / REJECTED.rpartition("/")[2]
    collect_rejected(store, len(counts), rejected)
    lost = lost_files(sources.account, counts, artifacts.rejected)
    for warning in (*lost, *check_bad(config.data, counts, rejected, artifacts.rejected)):
        messages.warn(warning)

    encoded = open_encoded(store, counts, plan, settings.dtype)
    selection = select(encoded, config.data, sources, tokenizer, work)
    _check_something_left(counts, selection)
    rows = choose_rows(config, tokenizer, messages.warn, selection.sampled_lengths())
    staging.begin()
    middles = open_middles(config.data, encoded, middle_tokens, settings.encoder, rows, work)
    alone = len(sources.names) if config.data.stages else 0
    train = _write("train", selection, rows, staging, progress, middles, alone)
    validation = _write("validation", selection, rows, staging, progress)
    shutil.move(rejected, staging.rejected)
    write_inputs(staging.input_list, inputs, encoded.file_documents())

    figures = add_figures(selection, counts, rows.border_tokens)
    text = PackedText(counts, figures, selection, rows, train, validation, middles.added if middles else 0)
    if middles is not None:
        progress.note(middles.told)
    ledger = make_ledger(text)
    back = measure_round_trip(config, tokenizer, sample)
    _warn_of_losses(config, ledger, text, back, messages)
    record = tokenizer_record(config, tokenizer, settings.encoder.engine, key, back)
    seconds = time.perf_counter() - started
    published = {f"tokenizer/{name}": each for name, each in record_files(tokenizer.folder).items()}
    lists = record_files(staging.folder, [Path(name).name for name in LISTS])
    published |= {name: lists[Path(name).name] for name in LISTS}
    manifest = build_manifest(config, inputs, request, record, text, ledger, messages, seconds, published)
    for kept in copy_edited(artifacts):
        progress.warn(kept)
    staging.publish(tokenizer.folder, manifest)
    remove_work(artifacts)
    return result_of(manifest, artifacts, started, reused=False, counts=counts)


def _encode_some_shards(
    config: Config, artifacts: Artifacts, progress: Progress, sources: Sources, started: float
) -> PrepareResult:
    # Only a tokenizer that is trained here needs all of the text: without one, a thousand machines needn't hash it.
    trains_tokenizer = bool(config.tokenizer.extend_vocab) or not (config.tokenizer.path or config.model.base)
    inputs = find_inputs(sources, artifacts, progress) if trains_tokenizer else unhashed_inputs(sources)
    request = make_request(config, inputs, artifacts)
    if trains_tokenizer and (previous := matching_output(artifacts, request, inputs, progress)):
        return result_of(previous, artifacts, started, reused=True)

    messages, work = Messages(progress, artifacts.manifest, artifacts.rejected), _work_folder(artifacts)
    tokenizer = find_tokenizer(config, artifacts, work, tokenizer_key(request), sources, progress)
    check_middles(config, tokenizer)
    sample = check_sample(sources.files, config)
    settings = _shard_settings(config, tokenizer, messages, sample, len(sources.files))
    _, _, counts = encode_text(
        config.data, sources.files, settings, tokenizer, work, progress, merge=False, remote=artifacts.remote
    )
    messages.add(counts)
    progress.note("These shards are finished. Once all are, ptk prepare --merge packs the rows.")
    entries = f"{exact(tokenizer.vocab_size)} entries, encoded by {settings.encoder.engine}"
    return result_of_shards(counts, entries, messages, artifacts, started)


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
    check_no_links(work)
    work.mkdir(parents=True, exist_ok=True)
    clear_links(work)
    return work


def _shard_settings(
    config: Config, tokenizer: TokenizerInfo, messages: Messages, sample: list[str], files: int
) -> ShardSettings:
    data = config.data
    encoder, reason = choose_encoder(tokenizer.file, config.tokenizer.engine, data.parse_special_tokens, sample)
    if reason:
        messages.warn(f"{reason}: the engine tokenizers encodes, which is slower.")
    return ShardSettings(
        encoder=encoder,
        dtype=tokenizer.id_dtype,
        separator=data.separator,
        column=data.text_column,
        encoding=data.encoding,
        strict=Strictness.of(data.on_error, files),
        cleaning=data.cleaning,
        near_dedup=data.near_dedup,
        max_record_bytes=data.max_record_bytes,
    )


def _check_something_left(counts: list[ShardCounts], selection: Selection) -> None:
    if not selection.train.documents:
        dropped = dropped_documents(counts, selection)
        reasons = ", ".join(f"{count(number)} {reason}" for reason, number in dropped.items())
        raise DataError(
            f"No text is left to train on ({reasons or 'no documents found'}).",
            "Check data.cleaning, or give more text.",
        )


def _write(
    split: str,
    selection: Selection,
    rows: RowSettings,
    staging: Staging,
    progress: Progress,
    middles: Middles | None = None,
    sources: int = 0,
) -> SplitCounts:
    """Pack a split, with ``sources`` each of so many sources in rows of its own."""
    extents = [selection.train, selection.repeated] if split == "train" else [selection.validation]
    tokens = sum(part.tokens + rows.border_tokens * part.documents for part in extents)

    def part(source: int | None) -> Iterable[DocumentRanges]:
        copies = selection.copies() if split == "train" else ()
        ranges: Iterable[DocumentRanges] = itertools.chain(selection.ranges(split), copies)
        if source is not None:
            ranges = (each.where(each.sources == source) for each in ranges)
        return ranges if middles is None else middles.rearranged(ranges)

    progress.stage(f"packing {split}", float(tokens), "tokens")
    ids_file = selection.encoded.ids_file if middles is None else middles.ids_file
    parts = map(part, range(sources) if sources else [None])
    counts = write_split(parts, ids_file, rows, staging.split(split), lambda done: progress.advance(done))
    progress.end_stage()
    return counts


def _warn_of_losses(
    config: Config, ledger: Ledger, text: PackedText, back: RoundTripRecord, messages: Messages
) -> None:
    if config.data.validation_fraction and not text.validation.rows:
        length = exact(text.rows.sequence_length)
        messages.warn(f"The text is too small for a validation row of {length} tokens: none is held out.")
    unwritable = ledger.unwritable
    if unwritable.bytes:
        lost, documents = count_of(unwritable.bytes, "byte"), count_of(unwritable.documents, "document")
        messages.warn(f"The tokenizer has no token for {lost} in {documents}: they are missing from the rows.")
    elif back.changed:
        messages.warn(f"The tokenizer doesn't give a sample of the text back: it loses {told(back)}. {FLATTERS}")
