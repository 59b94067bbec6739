"""Finds the files of shards: in a folder, or in object storage where machines that share no disk encoded them."""

from __future__ import annotations

import contextlib
import shutil
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pretrain_cli.data.encoding.shard_files import ENDINGS, finished_shard, read_shard_record, shard_file
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.remote import RemoteFolder

AT_ONCE = 8
IDS_KEPT = 32
"""Fetched files of ids that stay on this machine: packing reads the shards one after the other."""


class ShardStore:
    """The files of all shards of a prepare.

    Args:
        folder: on this machine.
        remote: where other machines put theirs; None where all share the folder.
    """

    def __init__(self, folder: Path, remote: RemoteFolder | None = None) -> None:
        self.folder, self.remote = folder, remote
        self._there: dict[str, int] = {}
        self._fetched: OrderedDict[Path, None] = OrderedDict()

    def look(self) -> None:
        """See what is in object storage by now."""
        if self.remote is not None:
            self._there = self.remote.files()

    def finished(self, chosen: Iterable[int]) -> dict[int, ShardCounts]:
        """Number → counts, of those shards that are complete, here or there."""
        self.look()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(self._counts, chosen)
            return {index: counts for index, counts in zip(chosen, found, strict=True) if counts is not None}

    def _counts(self, index: int) -> ShardCounts | None:
        name = shard_file(self.folder, index, "json").name
        record = finished_shard(self.folder, index)
        if record is None and self.remote is not None and name in self._there:
            self.remote.get(name, self.folder / name)
            there = read_shard_record(self.folder, index)
            if there is not None and all(self._there.get(each) == file.size for each, file in there.files.items()):
                for each in there.files:  # what is here isn't what is there
                    (self.folder / each).unlink(missing_ok=True)
                record = there
        return record.counts if record is not None else None

    def has(self, index: int, ending: str) -> bool:
        """Whether a shard has such a file."""
        path = shard_file(self.folder, index, ending)
        return path.is_file() or path.name in self._there

    def path(self, index: int, ending: str) -> Path:
        """A file of a shard, on this machine: it is fetched if it isn't here.

        Raises:
            StorageError: what was fetched isn't what was written.
        """
        path = shard_file(self.folder, index, ending)
        if self.remote is not None and not path.is_file() and path.name in self._there:
            record = read_shard_record(self.folder, index)
            hint = "Remove it there, and run the commands with --shard again."
            self.remote.get(path.name, path, record.files.get(path.name) if record else None, hint)
            if ending == "ids":
                self._fetched[path] = None
                if len(self._fetched) > IDS_KEPT:
                    with contextlib.suppress(OSError):  # Windows keeps a file that is still mapped
                        self._fetched.popitem(last=False)[0].unlink()
        return path


def send_shard(remote: RemoteFolder, folder: Path, index: int) -> None:
    """Put the files of a finished shard into object storage, its record last."""
    for ending in (*ENDINGS, "json"):
        path = shard_file(folder, index, ending)
        if path.is_file():
            remote.put(path, path.name)


def collect_rejected(store: ShardStore, shards: int, path: Path) -> None:
    """Write the bad records of all shards, in order, to one file."""
    with open(path, "wb") as out:
        for index in range(shards):
            if store.has(index, "rejected"):
                with open(store.path(index, "rejected"), "rb") as lines:
                    shutil.copyfileobj(lines, out, 1 << 20)
