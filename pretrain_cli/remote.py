"""Keeps an artifact folder in object storage, with a copy on this machine that the stages read and write."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import xxhash

from pretrain_cli.addresses import identity, redact_address
from pretrain_cli.errors import MissingDependencyError, PtkError
from pretrain_cli.file_systems import fsspec_module
from pretrain_cli.formatting import duration
from pretrain_cli.optional import to_install
from pretrain_cli.progress import SILENT, Progress
from pretrain_cli.records import FileRecord
from pretrain_cli.storage import file_hash, user_cache

PATIENCE_S = 600.0
"""How long a storage that doesn't answer is asked again before a command ends."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
PART = ".ptk-part"
"""Ends the name of a file that isn't here as a whole yet."""
HOW_TO_OPEN = (
    f"s3:// needs no package; for Google's storage: {to_install('gcsfs')}; for Azure's: {to_install('adlfs')}."
)
REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "InvalidAccessKey")
"""In the errors of a storage that answers, and won't do otherwise however often it is asked."""
Found = TypeVar("Found")


class StorageError(PtkError):
    """An object storage that doesn't answer, or refuses: exit code 3, because the output of a stage is missing."""

    exit_code = 3
    kind = "storage"


def is_remote(place: str) -> bool:
    """Whether this names a folder in object storage."""
    return "://" in place and not place.startswith("file://")


def mirror_of(url: str) -> Path:
    """The folder on this machine that a folder in object storage is copied to."""
    name = url.rstrip("/").rpartition("/")[2] or "artifacts"
    return user_cache() / "artifacts" / f"{name}-{xxhash.xxh3_64_hexdigest(identity(url).encode())}"


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in object storage.

    Attributes:
        url: of the folder, such as ``s3://bucket/artifacts``.
        progress: is told when the storage doesn't answer.
    """

    url: str
    progress: Progress = SILENT

    @cached_property
    def _system(self) -> tuple[Any, str]:
        try:
            system, root = fsspec_module().core.url_to_fs(self.url)
        except (ImportError, ValueError, TypeError) as error:
            # fsspec makes arguments of an address, and misses some where it says too little.
            why = "it isn't a whole address" if isinstance(error, TypeError) else str(error)
            raise MissingDependencyError(f"{redact_address(self.url)} can't be opened: {why}.", HOW_TO_OPEN) from error
        return system, root.rstrip("/")

    def files(self, below: str = "") -> dict[str, int]:
        """Name → bytes, of all files under a folder in it.

        Raises:
            StorageError: a name leads out of the folder, or the storage doesn't answer.
        """
        system, root = self._system

        def find() -> dict[str, int]:
            system.invalidate_cache()
            found = system.find(f"{root}/{below}" if below else root, detail=True)
            return {_inside(name[len(root) + 1 :]): int(info.get("size") or 0) for name, info in found.items()}

        try:
            return self._patiently(find, "listed")
        except FileNotFoundError:
            return {}

    def get(
        self, name: str, path: Path, record: FileRecord | None = None, hint: str = "Prepare the text again there."
    ) -> None:
        """Copy a file to ``path``, complete or not at all; ``record``: its size and hash, ``hint``: if it has others.

        Raises:
            StorageError: it isn't there, has other bytes than were written, or the storage doesn't answer.
        """
        system, root = self._system
        part = path.with_name(f"{path.name}{PART}-{os.getpid()}-{threading.get_ident()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        other = StorageError(f"{redact_address(self.url)}/{name} has other bytes than ptk wrote.", hint)

        def copy() -> None:
            if record is not None and system.size(f"{root}/{name}") != record.size:  # it may be of any size
                raise other
            system.get_file(f"{root}/{name}", str(part))

        try:
            self._patiently(copy, "read")
            if record is not None and (part.stat().st_size != record.size or file_hash(part) != record.hash):
                raise other
            os.replace(part, path)
        except FileNotFoundError as error:
            raise StorageError(f"{redact_address(self.url)}/{name} is missing.", "Check the address.") from error
        finally:
            part.unlink(missing_ok=True)

    def put(self, path: Path, name: str) -> None:
        """Copy a file there. Object storage shows it once it is whole."""
        system, root = self._system
        self._patiently(lambda: system.put_file(str(path), f"{root}/{name}"), "written")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that aren't there don't matter."""
        system, root = self._system
        for name in names:
            try:
                self._patiently(functools.partial(system.rm_file, f"{root}/{name}"), "removed from")
            except FileNotFoundError:
                pass

    def _patiently(self, call: Callable[[], Found], what: str) -> Found:
        """Call until the storage answers, for `PATIENCE_S`."""
        started, pause = time.monotonic(), FIRST_WAIT_S
        while True:
            try:
                return call()
            except (FileNotFoundError, StorageError):
                raise
            except Exception as error:  # each file system has errors of its own
                if _is_final(error) or time.monotonic() - started > PATIENCE_S:
                    raise self._refused(error, what) from error
                if pause == FIRST_WAIT_S:
                    self.progress.note(f"{redact_address(self.url)} doesn't answer: trying again.")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_WAIT_S)

    def _refused(self, error: Exception, what: str) -> StorageError:
        reason = " ".join(str(error).split()) or type(error).__name__
        waited = "" if _is_final(error) else f", after {duration(PATIENCE_S)}"
        return StorageError(
            f"{redact_address(self.url)} can't be {what}{waited}: {reason}.",
            "Check the address, the network and the login, then run the command again: it continues.",
        )


def _inside(name: str) -> str:
    """``name``, of a file that may be copied here. Storage takes any text as a name, and a record may hold any.

    Raises:
        StorageError: it leads out of the folder that it is copied to.
    """
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.anchor or ".." in path.parts:
            raise StorageError(
                f"The artifact folder holds a file called {name!r}, which leads out of it.",
                "Nothing was copied. Find out who put it there, and remove it.",
            )
    return name


def _is_final(error: Exception) -> bool:
    """Whether asking again is no use."""
    return isinstance(error, PermissionError | NotImplementedError) or any(word in str(error) for word in REFUSALS)


def pull(remote: RemoteFolder, folder: Path, records: Mapping[str, FileRecord], progress: Progress) -> None:
    """Copy the files that ``records`` name to ``folder``, where they aren't there as they should be.

    Raises:
        StorageError: one is missing, has other bytes, or a name that leads out of ``folder``.
    """
    wanted = {_inside(name): record for name, record in records.items() if not _is_there(folder / name, record)}
    if not wanted:
        return
    progress.stage("fetching the data", sum(record.size for record in wanted.values()), "bytes")
    done = 0
    for name, record in wanted.items():
        remote.get(name, folder / name, record)
        done += record.size
        progress.advance(done)
    progress.end_stage()


def _is_there(path: Path, record: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == record.size and file_hash(path) == record.hash
