"""One shard task: a range of the input in, its token ids and counts out. A pure function of (range, settings)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pretrain_cli.addresses import redact_all
from pretrain_cli.artifacts import writing_to
from pretrain_cli.data.cleaning.near_duplicates import PERMUTATIONS
from pretrain_cli.data.encoding.encoder import Encoder
from pretrain_cli.data.encoding.shards import Shard, ShardSettings, TaskCounts
from pretrain_cli.data.reading.files import STDIN, InputFile, Span, is_url

LEAST_TASK_BYTES, MOST_TASK_BYTES = 1 << 20, 16 << 20
TASKS_WANTED = 8
"""Small input is cut finer, so that tasks can run side by side; a kill loses at most a task."""


@dataclass(frozen=True)
class Task:
    """Spans of input that one worker turns into one shard."""

    index: int
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        return sum(span.size for span in self.spans)


def plan_tasks(files: list[InputFile], task_bytes: int = 0) -> list[Task]:
    """Cut the input into tasks of about ``task_bytes`` (0: by its size), the same for every part of a prepare.

    Small files go together; large jsonl files are cut into ranges of lines.
    """
    total = sum(max(0, file.size) for file in files)
    task_bytes = task_bytes or min(MOST_TASK_BYTES, max(LEAST_TASK_BYTES, total // TASKS_WANTED))
    tasks: list[Task] = []
    spans: list[Span] = []
    held = 0
    for file in files:
        for span in _spans(file, task_bytes):
            if spans and held + max(0, span.size) > task_bytes:
                tasks.append(Task(len(tasks), tuple(spans)))
                spans, held = [], 0
            spans.append(span)
            held += max(0, span.size)
    if spans:
        tasks.append(Task(len(tasks), tuple(spans)))
    return tasks


def _spans(file: InputFile, task_bytes: int) -> Iterator[Span]:
    splittable = file.format == "jsonl" and not file.compression and file.path != STDIN and not is_url(file.path)
    if not splittable or file.size <= task_bytes:
        yield Span(file)
        return
    start = 0
    with open(file.path, "rb") as stream:
        while start < file.size:
            stream.seek(min(start + task_bytes, file.size))
            stream.readline()
            end = stream.tell()
            yield Span(file, start, end)
            start = end


def shard_name(index: int) -> str:
    return f"task-{index:06d}"


def run_task(
    task: Task,
    settings: ShardSettings,
    folder: Path,
    encoder: Encoder | None = None,
    stop: threading.Event | None = None,
) -> TaskCounts:
    """Read, clean and encode one task into ``folder``: NAME.ids, NAME.documents.npy, and NAME.json last.

    Bad records are listed in NAME.rejected, a JSON object a line.

    Once ``stop`` is set it ends at the next record with ``Stopped``.

    Raises:
        DataError: a bad record or file, where ``on_error`` is "fail".
    """
    name = shard_name(task.index)
    with writing_to(folder):
        with (
            open(folder / f"{name}.ids", "wb") as sink,
            Shard(settings, encoder or Encoder(settings.encoder), sink, stop) as shard,
        ):
            for span in task.spans:
                shard.read_span(span)
        np.save(folder / f"{name}.documents.npy", shard.table())
        if settings.near_dedup:
            signatures = np.array(shard.signatures, np.uint32).reshape(-1, PERMUTATIONS)
            np.save(folder / f"{name}.signatures.npy", signatures)
        if shard.rejected:
            lines = (json.dumps(redact_all(asdict(entry)), ensure_ascii=False) for entry in shard.rejected)
            (folder / f"{name}.rejected").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        record = folder / f"{name}.json.part"
        record.write_text(json.dumps(redact_all(asdict(shard.counts))))
        os.replace(record, folder / f"{name}.json")
    return shard.counts


def finished_task(folder: Path, index: int) -> TaskCounts | None:
    """The counts of a task whose shard is complete, or None."""
    path = folder / f"{shard_name(index)}.json"
    return TaskCounts(**json.loads(path.read_text())) if path.is_file() else None
