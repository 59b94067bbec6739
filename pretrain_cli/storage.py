"""Reads and writes files so that each is complete or absent."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import shutil
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import platformdirs
import xxhash

from pretrain_cli.errors import DataError, ModelError, UsageError
from pretrain_cli.foreign import Ours, foreign_entries, remove_ours
from pretrain_cli.formatting import byte_size, exact
from pretrain_cli.refusals import denied, writing_to
from pretrain_cli.sealing import sealed, with_open_seal
from pretrain_cli.small_files import MOST_BYTES, no_wait, small_bytes
from pretrain_cli.trees import everything_in, remove_tree

if TYPE_CHECKING:
    from typing_extensions import Buffer

HASH_BLOCK = 1 << 20
OURS = "ptk-"
"""In every temporary name beside a user's own files: nothing without it is ever taken for an abandoned one."""
ABANDONED_S = 3600.0
"""What hasn't changed for this long is written by nobody any more: its process was killed."""

NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Opens no file that a link names: a stranger's folder may hold links to somebody's files."""
WRITER_WAIT_S = 10.0
"""How long a pipe may have no writer: the shell starts both sides of one at about the same time."""
COUNTED, SPOKEN = ("step", "tokens"), ("prompt", "text")
"""Keys of metrics.jsonl and samples.jsonl that have whole numbers, and those that have texts."""
MOST_COUNT = 10**18


def read_bounded(path: Path, most_bytes: int) -> str:
    """The text in a file or a pipe, which is UTF-8.

    Raises:
        UsageError: it is a device or a socket, or larger than ``most_bytes``.
        OSError: it can't be read.
        UnicodeDecodeError: it isn't UTF-8.
    """
    # Without this flag, opening a pipe waits for its writer, for ever if there is none.
    with open(path, "rb", buffering=0, opener=no_wait) as file:
        mode = os.fstat(file.fileno()).st_mode
        no_file = UsageError(f"{path} is a device or a socket, not a file.", "Name a file, or a pipe that ends.")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise no_file
        parts, left, latest = [], most_bytes + 1, time.monotonic() + WRITER_WAIT_S
        while left > 0:
            block = file.read(min(left, 1 << 20))
            if block:
                parts.append(block)
                left -= len(block)
            elif block is None and not stat.S_ISFIFO(mode):  # /proc/kmsg calls itself a file, and waits for ever
                raise no_file
            elif block is None or (stat.S_ISFIFO(mode) and not parts and time.monotonic() < latest):
                if block is None:  # there is a writer, which has written nothing yet
                    latest = -math.inf
                time.sleep(0.02)
            else:
                break
    if left <= 0:
        raise UsageError(
            f"{path} is larger than {byte_size(most_bytes)}, the most that is read here.", "Name a smaller file."
        )
    return io.TextIOWrapper(io.BytesIO(b"".join(parts)), encoding="utf-8").read()


def user_cache() -> Path:
    """Folder for what can be made or fetched again: PTK_CACHE, or ptk's in the system's place for such things."""
    return Path(os.environ.get("PTK_CACHE") or platformdirs.user_cache_path("ptk"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        DataError: the file is missing, no file, larger than `MOST_BYTES`, or isn't a JSON object.
    """
    try:
        value = json.loads(read_bounded(path, MOST_BYTES))
    except UsageError as error:
        raise DataError(error.message, error.hint) from error
    except PermissionError as error:
        raise DataError(*denied(error, path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {error}.", "Create it again with the command that wrote it.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} isn't a JSON object.", "Create it again with the command that wrote it.")
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The values in ``text``.

    Raises:
        TOMLDecodeError: it isn't TOML, is nested too deeply, or has a number that Python doesn't read or show.
    """
    try:
        values = tomllib.loads(text)
        repr(values)  # fails for a hexadecimal number that is as long, as does every message that shows it
        return values
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        most = sys.get_int_max_str_digits()
        raise tomllib.TOMLDecodeError(f"it has a number of over {exact(most)} digits") from error
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or samples.jsonl; none if there is no file.

    Leaves out a line that isn't one: half-written, as a killed process leaves it, or damaged. The same for a line with
    another kind of value than ptk writes there: what reads them computes with the numbers.

    Raises:
        DataError: the file is too large to be one.
    """
    lines = []
    try:
        content = small_bytes(path) if path.is_file() else b""
    except PermissionError as error:
        raise DataError(*denied(error, path)) from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.", "Restore the file, or remove it.") from error
    for text in io.BytesIO(content):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and _is_count(value.get("step")) and all(map(_is_figure, value.items())):
            lines.append(value)
    return lines


def _is_figure(entry: tuple[str, Any]) -> bool:
    """Whether a value has a kind that ptk writes under its key."""
    key, value = entry
    if key in COUNTED:
        return _is_count(value)
    return value is None or isinstance(value, float) or _is_count(value) or (key in SPOKEN and isinstance(value, str))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_COUNT


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` to ``path``, completely or not at all."""
    write_text(path, _json(value))


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write a record with the hash of its own text, completely or not at all."""
    write_text(path, sealed(_json(with_open_seal(value))))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, completely or not at all.

    A file name's bytes that aren't UTF-8 (lone surrogates) become ``\\udce9``, which JSON reads back as the same.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def open_own(path: Path, mode: str) -> IO[str]:
    """A text file that only ptk writes, opened by ``mode``: "w" or "a".

    Raises:
        OSError: it can't be, or it is a link, as a stranger's folder may hold: what that names isn't ptk's to write.
    """
    return open(path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | NOT_A_LINK, 0o666))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the name ``path`` when the block ends well, and vanishes otherwise.

    It is on the disk (fsync) before it gets its name, and the name before this returns.
    """
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}.{OURS}"
        clear_abandoned(path.parent, prefix)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~umask())
            move_file(Path(name), path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def move_file(source: Path, target: Path) -> None:
    """Give a finished file of the same file system its name, after an fsync; an older ``target`` is replaced."""
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    sync_folder(target.parent)


@contextlib.contextmanager
def temporary_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """A new folder in ``parent`` that is gone after the block, or, where this process is killed, after a later call."""
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{OURS}{purpose}-"
    clear_abandoned(parent, prefix)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as name:
        yield Path(name)


def clear_abandoned(folder: Path, prefix: str) -> None:
    """Remove what killed processes left in ``folder`` under temporary names that begin with ``prefix``."""
    latest = time.time() - ABANDONED_S
    for entry in [entry for entry in folder.iterdir() if entry.name.startswith(prefix)]:
        with contextlib.suppress(OSError):  # another process removes it, or it can't be removed
            if max(path.lstat().st_mtime for path in (entry, *everything_in(entry))) < latest:
                remove_tree(entry) if entry.is_dir() else entry.unlink()


@dataclass(frozen=True)
class Replacement:
    """A finished file or folder that takes a name, on the same file system.

    Attributes:
        staging: the finished one.
        final: its name. What is in an older folder and isn't ``ours`` is moved into the new one.
        ours: gives the files in an older folder that ptk wrote; None: the folder is ptk's whole.
        last: of these, the record that says so.
    """

    staging: Path
    final: Path
    ours: Ours | None = None
    last: str = ""

    @property
    def old(self) -> Path:
        """Where an older one waits until the new one is in place."""
        return self.final.with_name(f".{OURS}old-{self.final.name}")


def publish_folder(staging: Path, final: Path, ours: Ours | None = None, last: str = "") -> None:
    """Give a finished folder its final name, after an fsync of every file. It replaces an older ``final``.

    ``ours`` and ``last`` are those of a `Replacement`.
    """
    publish_all([Replacement(staging, final, ours, last)])


def publish_all(replacements: Sequence[Replacement]) -> None:
    """Give all their names, or, where the system refuses, none: what was there before is put back.

    The first is the first to leave its name and the last to take it: a record that says that the others are complete.
    One whose staging is missing was already moved, by a process that was killed after that.

    Raises:
        OSError: the system refuses.
    """
    waiting = [replacement for replacement in replacements if replacement.staging.exists()]
    for replacement in waiting:
        _sync_tree(replacement.staging)
        if os.path.lexists(replacement.final):
            _clear_old(replacement)  # of a process that was killed here
        elif os.path.lexists(replacement.old):  # or in between: the older one is all there is
            os.replace(replacement.old, replacement.final)
        _check_changeable(replacement)
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        os.replace(source, target)
        done.append((source, target))

    try:
        for replacement in waiting:
            if os.path.lexists(replacement.final):
                move(replacement.final, replacement.old)
        for replacement in reversed(waiting):
            move(replacement.staging, replacement.final)
    except OSError:
        for source, target in reversed(done):
            os.replace(target, source)
        raise
    for folder in {replacement.final.parent for replacement in replacements}:
        sync_folder(folder)
    for replacement in reversed(replacements):  # the record of what is in the others goes last
        _clear_old(replacement)


def _check_changeable(replacement: Replacement) -> None:
    """Check that what ptk didn't write in an older folder may be moved out of it, before the folder leaves its name.

    Raises:
        PermissionError: it may not.
    """
    final = replacement.final
    if replacement.ours is None or final.is_symlink() or not final.is_dir():
        return
    check_access(final)
    for entry in foreign_entries(final, replacement.ours(final)):
        check_access(entry.parent)
        if entry.is_dir() and not entry.is_symlink():  # its own ".." changes
            check_access(entry)


def check_access(folder: Path) -> None:
    """Check that this user may list and change what is in ``folder``.

    Raises:
        PermissionError: that isn't so.
    """
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _sync_tree(path: Path) -> None:
    """fsync a file, or every file and folder in a folder, and let everybody read them."""
    for entry in everything_in(path) if path.is_dir() else [path]:
        if entry.is_file():
            entry.chmod(entry.stat().st_mode | 0o644 & ~umask())
            with open(entry, "rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(entry)
    if path.is_dir():
        sync_folder(path)


def clear_replaced(final: Path, ours: Ours | None, last: str = "") -> None:
    """Finish what a process that published ``final`` couldn't: remove the one before, and keep what isn't ``ours``."""
    replacement = Replacement(final, final, ours, last)
    if final.exists():
        _clear_old(replacement)
    elif replacement.old.exists():  # that process was killed between the two, and the one before is all there is
        os.replace(replacement.old, final)


def _clear_old(replacement: Replacement) -> None:
    """Remove the older one, but first move what ptk didn't write there into the new one."""
    old = replacement.old
    if old.is_file() or old.is_symlink():  # of a link, what it names stays
        old.unlink()
    if not old.is_dir():
        return
    if replacement.ours is None:
        remove_tree(old, ignore_errors=True)
        return
    ours = replacement.ours(old)
    for entry in foreign_entries(old, ours):
        place = replacement.final / entry.relative_to(old)
        place.parent.mkdir(parents=True, exist_ok=True)
        while os.path.lexists(place):  # as after a kill, when the user has put another of this name there since
            place = place.with_name(f"{place.name}.old")
        os.replace(entry, place)
    remove_ours(old, ours, (replacement.last,))


def file_hash(path: Path) -> str:
    """The xxh3-128 of a file's bytes, 32 hex digits.

    Raises:
        OSError: it can't be read.
    """
    digest = xxhash.xxh3_128()
    with open(path, "rb", opener=no_wait) as file:  # a pipe may have taken its place, whose writer never comes
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def source_hash(files: Iterable[Path]) -> str:
    """Names what is made from ``files`` by their bytes, in this order, whatever their names and times are.

    Raises:
        OSError: one can't be read.
    """
    return str(xxhash.xxh3_128_hexdigest("".join(map(file_hash, files)).encode()))


class HashedFile:
    """A new file for writing that counts and hashes its bytes on the way."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._digest = xxhash.xxh3_128()
        self.size = 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def hash(self) -> str:
        """The xxh3-128 of what was written so far."""
        return str(self._digest.hexdigest())

    def write(self, data: Buffer) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.size += len(view)
        while view:  # an unbuffered file may take less
            view = view[self._file.write(view) :]
        return self.size

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of a model or run, which may be a stranger's, to where others may get it; see `check_link`."""
    check_link(source)
    shutil.copyfile(source, target)


def check_link(path: Path) -> None:
    """Check that a file of a model isn't a link to something else, such as a key or this process's environment.

    Links to a file of the same name stay, as in a folder made of another one's files; to other weights; and into the
    Hub's cache, which names files by their hashes.

    Raises:
        ModelError: it is.
    """
    if not path.is_symlink():
        return
    target = path.resolve()
    weights = path.suffix == target.suffix == ".safetensors"
    cached = target.parent.name == "blobs" and path.absolute().parent.parent.name == "snapshots"
    if target.name != path.name and not weights and not cached:
        raise ModelError(
            f"{path} is a link to another kind of file, {target}, which isn't copied.",
            "Put the file itself there, if it belongs to the model.",
        )


def sync_folder(path: Path) -> None:
    """fsync a folder, if the system can, so that a rename in it survives a power failure."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and journals renames; nor may a folder be opened without "r"
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_path(typed: str) -> Path:
    """The path that a user typed: a leading ``~`` is the home folder, in ``./~`` or ``~nobody`` it is a plain name."""
    # Path.expanduser drops "./" first, and fails for an unknown user.
    return Path(os.path.expanduser(typed))  # noqa: PTH111


def umask() -> int:
    """The permission bits that this process takes away from new files and folders."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
