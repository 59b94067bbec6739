"""Encodes the shards in threads of this process, in a pool of local processes, or on Ray; with the same bytes out."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pretrain_cli.config.model import Auto
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shard_files import encode_shard, finished_shard
from pretrain_cli.data.encoding.shards import Shard, ShardCounts, ShardSettings
from pretrain_cli.data.reading.formats import FORMATS
from pretrain_cli.errors import DataError, MissingDependencyError, PtkError
from pretrain_cli.progress import Progress

POOL_PAYS_BYTES = 32 << 20
SHARDS_AT_ONCE = 2
_ENCODERS: dict[object, Encoder] = {}


def choose_workers(wanted: int | Auto, shards: list[Shard], settings: ShardSettings) -> int:
    """Processes to use. `auto`: one, as fastokens encodes on all cores, unless Python works on each document."""
    if wanted != "auto":
        return max(1, min(wanted, len(shards)))
    slow = settings.cleaning or settings.near_dedup
    size = sum(shard.size for shard in shards if slow or FORMATS[shard.spans[0].file.format].slow)
    return min(len(shards), os.cpu_count() or 1) if size > POOL_PAYS_BYTES else 1


def encode_shards(
    shards: list[Shard],
    settings: ShardSettings,
    folder: Path,
    workers: int | Auto,
    progress: Progress,
    executor: str = "local",
) -> list[ShardCounts]:
    """Encode the shards that aren't finished in ``folder`` yet.

    Returns:
        The counts of all, in the order of ``shards``.
    """
    counts: dict[int, ShardCounts] = {}
    for shard in shards:
        found = finished_shard(folder, shard.index)
        if found is not None:
            counts[shard.index] = found
    left = [shard for shard in shards if shard.index not in counts]
    if counts and left:
        progress.note(f"Continuing: {len(counts):,} of {len(shards):,} shards are finished.")
    meter = _Meter(progress, shards, counts)
    many = choose_workers(workers, left, settings) if left else 1
    if left and executor == "ray":
        _run_ray(left, settings, folder, counts, meter)
    elif many == 1:
        _run_threads(left, settings, folder, counts, meter)
    else:
        _run_pool(left, settings, folder, many, counts, meter)
    progress.end_stage()
    return [counts[shard.index] for shard in shards]


class _Meter:
    def __init__(self, progress: Progress, shards: list[Shard], finished: dict[int, ShardCounts]) -> None:
        self.progress, self.started = progress, time.perf_counter()
        self.done = sum(max(0, shard.size) for shard in shards if shard.index in finished)
        self.bytes = self.tokens = 0
        progress.stage("encoding", sum(max(0, shard.size) for shard in shards), "bytes")
        progress.advance(self.done)

    def add(self, shard: Shard, counts: ShardCounts) -> None:
        self.done += max(0, shard.size)
        self.bytes += counts.bytes_in
        self.tokens += counts.tokens
        elapsed = max(1e-9, time.perf_counter() - self.started)
        self.progress.advance(
            self.done, megabytes_per_second=self.bytes / 1e6 / elapsed, tokens_per_second=self.tokens / elapsed
        )


def _run_threads(
    shards: list[Shard], settings: ShardSettings, folder: Path, counts: dict[int, ShardCounts], meter: _Meter
) -> None:
    """Encode two shards side by side in this process: Python reads one while the engine encodes the other."""
    if not shards:
        return
    encoder, stop = Encoder(settings.encoder), threading.Event()
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        waiting = {pool.submit(encode_shard, shard, settings, folder, encoder, stop): shard for shard in shards}
        try:
            for future in as_completed(waiting):
                shard = waiting[future]
                counts[shard.index] = future.result()
                meter.add(shard, counts[shard.index])
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _run_pool(
    shards: list[Shard],
    settings: ShardSettings,
    folder: Path,
    workers: int,
    counts: dict[int, ShardCounts],
    meter: _Meter,
) -> None:
    # spawn: a forked child of a process that has used threads (rayon's, torch's) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_limit_threads)
    try:
        waiting = {pool.submit(encode_in_worker, shard, settings, folder): shard for shard in shards}
        for future in as_completed(waiting):
            shard = waiting[future]
            counts[shard.index] = future.result()
            meter.add(shard, counts[shard.index])
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process was killed, perhaps because memory ran out.",
            "Run the command again: it continues. Try fewer workers (--workers).",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_ray(
    shards: list[Shard], settings: ShardSettings, folder: Path, counts: dict[int, ShardCounts], meter: _Meter
) -> None:
    """Encode the shards on a Ray cluster, or on a local one started for it; its nodes must share ``folder``."""
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "data.executor = 'ray' needs ray.", "pip install 'pretrain-cli[ray]', or use the local executor."
        ) from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1)(encode_in_worker)
        waiting = {remote.remote(shard, settings, folder.resolve()): shard for shard in shards}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            shard = waiting.pop(done)
            try:
                counts[shard.index] = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, PtkError) else error) from None
            meter.add(shard, counts[shard.index])
    finally:
        if started:
            ray.shutdown()


def _limit_threads() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def encode_in_worker(shard: Shard, settings: ShardSettings, folder: Path) -> ShardCounts:
    """Encode a shard in a worker process, which makes its encoder once."""
    encoder = _ENCODERS.get(settings.encoder)
    if encoder is None:
        encoder = _ENCODERS[settings.encoder] = Encoder(settings.encoder)
    return encode_shard(shard, settings, folder, encoder)
