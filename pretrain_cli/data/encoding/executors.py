"""Who runs the shard tasks? Threads of this process, a pool of local ones, or Ray; the bytes out are the same."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shards import ShardSettings, TaskCounts
from pretrain_cli.data.encoding.tasks import Task, finished_task, run_task
from pretrain_cli.data.reading.formats import FORMATS
from pretrain_cli.errors import DataError, MissingDependencyError, PtkError
from pretrain_cli.progress import Progress

POOL_PAYS_BYTES = 32 << 20
TASKS_AT_ONCE = 2
_ENCODERS: dict[object, Encoder] = {}


def choose_workers(wanted: int | Literal["auto"], tasks: list[Task], settings: ShardSettings) -> int:
    """Processes to use. `auto`: one unless Python code works on every document: fastokens encodes on all cores."""
    if wanted != "auto":
        return max(1, min(wanted, len(tasks)))
    slow = settings.cleaning or settings.near_dedup
    size = sum(task.size for task in tasks if slow or FORMATS[task.spans[0].file.format].slow)
    return min(len(tasks), os.cpu_count() or 1) if size > POOL_PAYS_BYTES else 1


def run_tasks(
    tasks: list[Task],
    settings: ShardSettings,
    folder: Path,
    workers: int | Literal["auto"],
    progress: Progress,
    executor: str = "local",
) -> list[TaskCounts]:
    """Run what isn't finished in ``folder`` yet; counts in the order of the tasks."""
    counts: dict[int, TaskCounts] = {}
    for task in tasks:
        found = finished_task(folder, task.index)
        if found is not None:
            counts[task.index] = found
    left = [task for task in tasks if task.index not in counts]
    if counts and left:
        progress.note(f"Continuing: {len(counts)} of {len(tasks)} shards are finished.")
    meter = _Meter(progress, tasks, counts)
    many = choose_workers(workers, left, settings) if left else 1
    if left and executor == "ray":
        _run_ray(left, settings, folder, counts, meter)
    elif many == 1:
        _run_threads(left, settings, folder, counts, meter)
    else:
        _run_pool(left, settings, folder, many, counts, meter)
    progress.end_stage()
    return [counts[task.index] for task in tasks]


class _Meter:
    def __init__(self, progress: Progress, tasks: list[Task], finished: dict[int, TaskCounts]) -> None:
        self.progress, self.started = progress, time.perf_counter()
        self.done = sum(max(0, task.size) for task in tasks if task.index in finished)
        self.bytes = self.tokens = 0
        progress.stage("encoding", sum(max(0, task.size) for task in tasks), "bytes")
        progress.advance(self.done)

    def add(self, task: Task, counts: TaskCounts) -> None:
        self.done += max(0, task.size)
        self.bytes += counts.bytes_in
        self.tokens += counts.tokens
        elapsed = max(1e-9, time.perf_counter() - self.started)
        self.progress.advance(
            self.done, megabytes_per_second=self.bytes / 1e6 / elapsed, tokens_per_second=self.tokens / elapsed
        )


def _run_threads(
    tasks: list[Task], settings: ShardSettings, folder: Path, counts: dict[int, TaskCounts], meter: _Meter
) -> None:
    """Two tasks side by side in this process: one is read, by Python, while the other's text is encoded, without."""
    if not tasks:
        return
    encoder, stop = Encoder(settings.encoder), threading.Event()
    with ThreadPoolExecutor(TASKS_AT_ONCE) as pool:
        waiting = {pool.submit(run_task, task, settings, folder, encoder, stop): task for task in tasks}
        try:
            for future in as_completed(waiting):
                task = waiting[future]
                counts[task.index] = future.result()
                meter.add(task, counts[task.index])
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _run_pool(
    tasks: list[Task],
    settings: ShardSettings,
    folder: Path,
    workers: int,
    counts: dict[int, TaskCounts],
    meter: _Meter,
) -> None:
    # spawn: a forked child of a process that has used threads (rayon's, torch's) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_limit_threads)
    try:
        waiting = {pool.submit(run_in_worker, task, settings, folder): task for task in tasks}
        for future in as_completed(waiting):
            task = waiting[future]
            counts[task.index] = future.result()
            meter.add(task, counts[task.index])
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process was killed, perhaps for want of memory.", "Run it again, it continues; try fewer workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_ray(
    tasks: list[Task], settings: ShardSettings, folder: Path, counts: dict[int, TaskCounts], meter: _Meter
) -> None:
    """The same tasks on a Ray cluster, or on a local one started for this; ``folder`` must be shared by its nodes."""
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
        remote = ray.remote(num_cpus=1)(run_in_worker)
        waiting = {remote.remote(task, settings, folder.resolve()): task for task in tasks}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            task = waiting.pop(done)
            try:
                counts[task.index] = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, PtkError) else error) from None
            meter.add(task, counts[task.index])
    finally:
        if started:
            ray.shutdown()


def _limit_threads() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def run_in_worker(task: Task, settings: ShardSettings, folder: Path) -> TaskCounts:
    """A task in a worker, whose encoder is made once."""
    encoder = _ENCODERS.get(settings.encoder)
    if encoder is None:
        encoder = _ENCODERS[settings.encoder] = Encoder(settings.encoder)
    return run_task(task, settings, folder, encoder)
