"""Encodes the text shard by shard, and continues with what an earlier prepare has finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.encoding.executors import encode_shards
from pretrain_cli.data.encoding.shard_plan import ShardPlan, choose_shards, plan_shards
from pretrain_cli.data.encoding.shard_store import ShardStore
from pretrain_cli.data.encoding.shards import ShardCounts, ShardSettings
from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.data.ours import clear_work
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.inputs import check_unchanged
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import exact
from pretrain_cli.progress import Progress
from pretrain_cli.remote import RemoteFolder
from pretrain_cli.tokenizer.load import TokenizerInfo


def encode_text(
    data: DataConfig,
    files: FileTable,
    settings: ShardSettings,
    tokenizer: TokenizerInfo,
    work: Path,
    progress: Progress,
    *,
    merge: bool,
    remote: str = "",
) -> tuple[ShardStore, ShardPlan, list[ShardCounts]]:
    """(store of the shards' files, plan, counts of each shard): all shards, or those that ``data.shard`` names.

    Args:
        data: says which shards, and who encodes them.
        files: the input.
        settings: what shapes the shards.
        tokenizer: that encodes.
        work: folder for what isn't complete; files of other shards in it are removed.
        progress: is told how far it is.
        merge: all shards must be finished already.
        remote: address of the artifact folder that machines share which share no disk; empty where they do.

    Raises:
        DataError: a bad record or file, a file that changed meanwhile, or with ``merge`` a shard that isn't finished.
    """
    folder = work / f"shards-{_key(files, settings, tokenizer)[:16]}"
    if not data.shard:
        clear_work(work, folder, tokenizer.folder)
    folder.mkdir(exist_ok=True)
    there = RemoteFolder(f"{remote}/data/.work/{folder.name}", progress) if remote else None
    store, plan = ShardStore(folder, there), plan_shards(files)
    chosen = choose_shards(len(plan), data.shard)
    counts = store.finished(chosen)
    if merge:
        _check_finished(chosen, counts)
    whole = encode_shards(plan, chosen, settings, store, data, progress, counts)
    check_unchanged(files)
    store.look()
    return store, plan, whole


def _key(files: FileTable, settings: ShardSettings, tokenizer: TokenizerInfo) -> str:
    """Names all that the shards' files follow from."""
    encoder = settings.encoder
    return fingerprint(
        {
            "layout": 9,
            "files": files.stamp(with_changes=False),
            "settings": [
                settings.dtype,
                settings.separator,
                settings.column,
                settings.encoding,
                asdict(settings.strict),
            ],
            "cleaning": [*settings.cleaning, "near" if settings.near_dedup else ""],
            "limit": settings.max_record_bytes,
            "encoder": [encoder.engine, encoder.cut, encoder.parse_special_tokens],
            "tokenizer": tokenizer.fingerprint,
        }
    )


def _check_finished(chosen: range, finished: Mapping[int, ShardCounts]) -> None:
    missing = [index for index in chosen if index not in finished]
    if missing:
        raise DataError(
            f"{exact(len(missing))} of {exact(len(chosen))} shards are unfinished or damaged, first {missing[0]}.",
            "Encode them with --shard, or run ptk prepare without --merge, which does what is left.",
        )
