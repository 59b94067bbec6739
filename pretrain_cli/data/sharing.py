"""Keeps prepared data in object storage: its record comes here first, and all of it goes there once it is complete."""

from __future__ import annotations

from pathlib import Path

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.data.ours import WORK
from pretrain_cli.errors import DataError
from pretrain_cli.manifest import LISTS, MANIFEST, read_manifest
from pretrain_cli.progress import Progress
from pretrain_cli.records import FileRecord
from pretrain_cli.remote import RemoteFolder, pull
from pretrain_cli.small_files import small_bytes

ROW_FILES = ".arrow"
"""Ends the names of the files that hold rows."""


def bring_record(artifacts: Artifacts, progress: Progress) -> None:
    """The manifest that is there, its lists and its tokenizer; the rows stay where they are.

    Raises:
        StorageError: the storage doesn't answer, or refuses.
    """
    remote = RemoteFolder(artifacts.remote, progress)
    if MANIFEST not in remote.files("data"):
        return
    fresh = artifacts.data / ".manifest.json.there"
    remote.get(MANIFEST, fresh)
    if artifacts.manifest.is_file() and small_bytes(artifacts.manifest) == small_bytes(fresh):
        fresh.unlink()
        return
    fresh.replace(artifacts.manifest)
    manifest = read_manifest(artifacts)
    wanted = {name: record for name, record in manifest.files.items() if name in LISTS or name.startswith("tokenizer/")}
    pull(remote, artifacts.root, wanted, progress)


def bring_data(
    artifacts: Artifacts, progress: Progress, splits: tuple[str, ...] = ("train", "validation"), *, large: bool = True
) -> None:
    """The manifest, the tokenizer and the rows of ``splits``, each compared with its hash.

    Without ``large``, only the small files beside the rows are fetched.

    Raises:
        DataError: nothing is prepared there.
        StorageError: a file is missing or damaged, or the storage doesn't answer.
    """
    bring_record(artifacts, progress)
    manifest = read_manifest(artifacts)
    folders = ("tokenizer/", *(f"data/{split}/" for split in splits))
    wanted = {name: record for name, record in manifest.files.items() if name.startswith(folders)}
    if not large:
        wanted = {name: record for name, record in wanted.items() if not name.endswith(ROW_FILES)}
    pull(RemoteFolder(artifacts.remote, progress), artifacts.root, wanted, progress)


def send_data(artifacts: Artifacts, progress: Progress) -> None:
    """All published files, the manifest last: until it is there, nothing is.

    Raises:
        StorageError: the storage doesn't answer, or refuses.
    """
    remote, manifest = RemoteFolder(artifacts.remote, progress), read_manifest(artifacts)
    there = remote.files("data") | remote.files("tokenizer")
    before = _files_there(artifacts, remote) if MANIFEST in there else {}
    kept = {name for name, own in manifest.files.items() if before.get(name) == own and there.get(name) == own.size}
    if len(kept) < len(manifest.files) or MANIFEST not in there:
        remote.remove([MANIFEST] if MANIFEST in there else [])
        left = {name: record for name, record in manifest.files.items() if name not in kept}
        progress.stage("sending the data", sum(record.size for record in left.values()), "bytes")
        done = 0
        for name, record in left.items():
            remote.put(artifacts.root / name, name)
            done += record.size
            progress.advance(done)
        remote.put(artifacts.manifest, MANIFEST)
        progress.end_stage()
    # What the last record there names, and what shards needed until all were whole; anything else is somebody's.
    work = (name for name in there if name.startswith("data/.work/") and WORK.fullmatch(name.split("/")[2]))
    remote.remove(name for name in (*before, *work) if name in there and name not in manifest.files)


def _files_there(artifacts: Artifacts, remote: RemoteFolder) -> dict[str, FileRecord]:
    """What the manifest there says of its files; nothing where it can't be read."""
    copy = Artifacts(Path(artifacts.data) / ".there")
    try:
        remote.get(MANIFEST, copy.manifest)
        return dict(read_manifest(copy).files)
    except DataError:
        return {}
    finally:
        copy.manifest.unlink(missing_ok=True)
