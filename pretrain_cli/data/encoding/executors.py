"""Encodes the shards in threads of this process, in a pool of local processes, or on Ray; with the same bytes out."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.util
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from pretrain_cli import file_systems
from pretrain_cli.config.model import Auto, DataConfig
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shard_files import encode_shard
from pretrain_cli.data.encoding.shard_plan import ShardPlan
from pretrain_cli.data.encoding.shard_store import ShardStore, send_shard
from pretrain_cli.data.encoding.shards import Shard, ShardCounts, ShardSettings
from pretrain_cli.data.reading.formats import FORMATS
from pretrain_cli.errors import DataError, MissingDependencyError, PtkError
from pretrain_cli.optional import to_install
from pretrain_cli.progress import Progress
from pretrain_cli.remote import RemoteFolder
from pretrain_cli.storage import replacing

POOL_PAYS_BYTES = 32 << 20
SHARDS_AT_ONCE = 2
WAITING_SHARDS = 4
"""Shards for each worker that are handed over before one is done: as objects, all of them would fill the memory."""
_ENCODERS: dict[object, Encoder] = {}
Work = TypeVar("Work")


def choose_workers(wanted: int | Auto, plan: ShardPlan, left: Sequence[int], settings: ShardSettings) -> int:
    """Processes to use. `auto`: one, as fastokens encodes on all cores, unless Python works on each document."""
    if wanted != "auto":
        return max(1, min(wanted, len(left)))
    slow = settings.cleaning or settings.near_dedup
    size = sum(plan.sizes[index] for index in left if slow or FORMATS[plan.format_of(index)].slow)
    return min(len(left), os.cpu_count() or 1) if size > POOL_PAYS_BYTES else 1


def encode_shards(
    plan: ShardPlan,
    chosen: range,
    settings: ShardSettings,
    store: ShardStore,
    data: DataConfig,
    progress: Progress,
    counts: dict[int, ShardCounts],
) -> list[ShardCounts]:
    """Encode the chosen shards that aren't in ``counts``, the finished ones, yet; ``data`` says by whom.

    Returns:
        The counts of all, in the order of ``chosen``.
    """
    left = [index for index in chosen if index not in counts]
    if counts and left:
        progress.note(f"Continuing: {len(counts):,} of {len(chosen):,} shards are finished.")
    meter = _Meter(progress, plan, chosen, counts)
    many = choose_workers(data.workers, plan, left, settings) if left else 1
    others = store.remote if data.shard else None  # on a Ray cluster, the nodes send their shards themselves
    encoding = _Encoding(plan, left, settings, store, counts, meter, others)
    if left and data.executor == "ray":
        _run_ray(encoding)
    elif left and many == 1:
        _run_threads(encoding)
    elif left:
        _run_pool(encoding, many)
    progress.end_stage()
    return [counts[index] for index in chosen]


class _Meter:
    def __init__(self, progress: Progress, plan: ShardPlan, chosen: range, finished: dict[int, ShardCounts]) -> None:
        self.progress, self.started = progress, time.perf_counter()
        self.done = sum(max(0, plan.sizes[index]) for index in finished)
        self.bytes = self.tokens = 0
        progress.stage("encoding", sum(max(0, plan.sizes[index]) for index in chosen), "bytes")
        progress.advance(self.done)

    def add(self, size: int, counts: ShardCounts) -> None:
        self.done += max(0, size)
        self.bytes += counts.bytes_in
        self.tokens += counts.tokens
        elapsed = max(1e-9, time.perf_counter() - self.started)
        self.progress.advance(
            self.done, megabytes_per_second=self.bytes / 1e6 / elapsed, tokens_per_second=self.tokens / elapsed
        )


@dataclass(frozen=True)
class _Encoding:
    """What is left to encode, and where the results go."""

    plan: ShardPlan
    left: list[int]
    settings: ShardSettings
    store: ShardStore
    counts: dict[int, ShardCounts]
    meter: _Meter
    sent_to: RemoteFolder | None

    def run(
        self,
        start: Callable[[Shard], Work],
        wait: Callable[[Collection[Work]], Iterable[Work]],
        result: Callable[[Work], ShardCounts],
        at_once: int,
    ) -> None:
        """Hand over the shards in order, a few at a time; ``wait`` gives those of the handed over that are done."""
        waiting: dict[Work, int] = {}
        coming = iter(self.left)
        while True:
            for index in itertools.islice(coming, at_once - len(waiting)):
                waiting[start(self.plan[index])] = index
            if not waiting:
                return
            for done in wait(waiting.keys()):
                index = waiting.pop(done)
                self.counts[index] = result(done)
                if self.sent_to is not None:
                    send_shard(self.sent_to, self.store.folder, index)
                self.meter.add(self.plan.sizes[index], self.counts[index])


def _first_done(futures: Collection[Future[ShardCounts]]) -> Iterable[Future[ShardCounts]]:
    return wait(futures, return_when=FIRST_COMPLETED).done


def _run_threads(encoding: _Encoding) -> None:
    """Encode two shards side by side in this process: Python reads one while the engine encodes the other."""
    settings, folder = encoding.settings, encoding.store.folder
    encoder, stop = Encoder(settings.encoder), threading.Event()
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        try:
            encoding.run(
                lambda shard: pool.submit(encode_shard, shard, settings, folder, encoder, stop),
                _first_done,
                Future.result,
                SHARDS_AT_ONCE * WAITING_SHARDS,
            )
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _run_pool(encoding: _Encoding, workers: int) -> None:
    # spawn: a forked child of a process that has used threads (rayon's, torch's) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        encoding.run(
            lambda shard: pool.submit(encode_in_worker, shard, encoding.settings, encoding.store.folder),
            _first_done,
            Future.result,
            workers * WAITING_SHARDS,
        )
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process was killed, perhaps because memory ran out.",
            "Run the command again: it continues. Try fewer workers (--workers).",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_ray(encoding: _Encoding) -> None:
    """Encode the shards on a Ray cluster, or a local one; its nodes share the folder, or object storage."""
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "data.executor = 'ray' needs ray.", f"{to_install(extra='ray')}, or use the local executor."
        ) from error
    started = not ray.is_initialized()
    if started:
        _start_ray(ray)

    def result(done: Any) -> ShardCounts:
        try:
            counts: ShardCounts = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, PtkError) else error) from None
        return counts

    try:
        settings, there = encoding.settings, encoding.store.remote
        if there is not None:
            elsewhere = ray.remote(num_cpus=1)(encode_elsewhere)
            tokenizer = ray.put(settings.encoder.file.read_bytes())

            def start(shard: Shard) -> Any:
                return elsewhere.remote(shard, settings, there.url, tokenizer)
        else:
            beside, folder = ray.remote(num_cpus=1)(encode_in_worker), encoding.store.folder.resolve()

            def start(shard: Shard) -> Any:
                return beside.remote(shard, settings, folder)

        encoding.run(
            start,
            lambda waiting: ray.wait(list(waiting), num_returns=1)[0],
            result,
            WAITING_SHARDS * max(1, int(ray.cluster_resources().get("CPU", 1))),
        )
    finally:
        if started:
            ray.shutdown()


def _start_ray(ray: Any) -> None:
    """Start Ray. With a cluster of its own it takes SIGTERM, to end this process with 1; whoever had it keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    multiprocessing.util.Finalize(None, _leave_what_never_ends, exitpriority=-100)
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _leave_what_never_ends() -> None:
    """At the end of a worker: pyarrow would wait for a storage that drips, and the parent for the worker."""
    if file_systems.unfinished.is_set():
        os._exit(0)


def _end_with_parent() -> None:
    """End this worker with the process that has started it: one that was killed sends no more shards, nor an end."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def encode_in_worker(shard: Shard, settings: ShardSettings, folder: Path) -> ShardCounts:
    """Encode a shard in a worker process, which makes its encoder once."""
    encoder = _ENCODERS.get(settings.encoder)
    if encoder is None:
        encoder = _ENCODERS[settings.encoder] = Encoder(settings.encoder)
    return encode_shard(shard, settings, folder, encoder)


def encode_elsewhere(shard: Shard, settings: ShardSettings, url: str, tokenizer: bytes) -> ShardCounts:
    """Encode a shard on a machine that shares no disk with the driver: its files go to object storage at ``url``."""
    name = f"ptk-tokenizer-{xxhash.xxh3_64_hexdigest(tokenizer)}"
    file = Path(tempfile.gettempdir()) / name / "tokenizer.json"
    if not file.is_file():
        with replacing(file) as written:
            written.write_bytes(tokenizer)
    with tempfile.TemporaryDirectory(prefix="ptk-shard-") as folder:
        own = replace(settings, encoder=replace(settings.encoder, file=file))
        counts = encode_in_worker(shard, own, Path(folder))
        send_shard(RemoteFolder(url), Path(folder), shard.index)
    return counts
