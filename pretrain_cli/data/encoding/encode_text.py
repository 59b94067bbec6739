"""Encodes the text shard by shard, and continues with what an earlier prepare has finished."""

from __future__ import annotations

import shutil
from pathlib import Path

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.encoding.executors import encode_shards
from pretrain_cli.data.encoding.shard_files import finished_shard
from pretrain_cli.data.encoding.shard_plan import choose_shards, plan_shards
from pretrain_cli.data.encoding.shards import Shard, ShardCounts, ShardSettings
from pretrain_cli.data.fingerprint import fingerprint
from pretrain_cli.data.reading.input_files import InputFile
from pretrain_cli.data.reading.inputs import check_unchanged
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import exact
from pretrain_cli.progress import Progress
from pretrain_cli.tokenizer.load import TokenizerInfo


def encode_text(
    data: DataConfig,
    files: list[InputFile],
    settings: ShardSettings,
    tokenizer: TokenizerInfo,
    work: Path,
    progress: Progress,
    *,
    merge: bool,
) -> tuple[Path, list[ShardCounts]]:
    """(folder of the shards' files, counts of each shard): all shards, or those that ``data.shard`` names.

    Args:
        data: says which shards, and who encodes them.
        files: the input.
        settings: what shapes the shards.
        tokenizer: that encodes.
        work: folder for what isn't complete; files of other shards in it are removed.
        progress: is told how far it is.
        merge: all shards must be finished already.

    Raises:
        DataError: a bad record or file, a file that changed meanwhile, or with ``merge`` a shard that isn't finished.
    """
    folder = work / f"shards-{_key(files, settings, tokenizer)[:16]}"
    if not data.shard:
        _remove_all_but(work, folder, tokenizer.folder)
    folder.mkdir(exist_ok=True)
    shards = choose_shards(plan_shards(files), data.shard)
    if merge:
        _check_finished(shards, folder)
    counts = encode_shards(shards, settings, folder, data.workers, progress, data.executor)
    check_unchanged(files)
    return folder, counts


def _key(files: list[InputFile], settings: ShardSettings, tokenizer: TokenizerInfo) -> str:
    """Names all that the shards' files follow from."""
    encoder = settings.encoder
    return fingerprint(
        {
            "layout": 4,
            "files": [file.to_dict() for file in files],
            "settings": [settings.dtype, settings.separator, settings.column, settings.encoding, settings.on_error],
            "cleaning": [*settings.cleaning, "near" if settings.near_dedup else ""],
            "limit": settings.max_record_bytes,
            "encoder": [encoder.engine, encoder.cut, encoder.parse_special_tokens],
            "tokenizer": tokenizer.fingerprint,
        }
    )


def _remove_all_but(work: Path, *kept: Path) -> None:
    for other in list(work.iterdir()):
        if other not in kept:
            shutil.rmtree(other, ignore_errors=True)


def _check_finished(shards: list[Shard], folder: Path) -> None:
    missing = [shard.index for shard in shards if finished_shard(folder, shard.index) is None]
    if missing:
        raise DataError(
            f"{exact(len(missing))} of {exact(len(shards))} shards aren't finished; the first is {missing[0]}.",
            "Encode them with --shard, or run ptk prepare without --merge, which does what is left.",
        )
