"""Turns the system's refusals to read or write into errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pretrain_cli.errors import PtkError, UsageError
from pretrain_cli.formatting import byte_size

FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
"""The disk is full, or the user's quota is used up."""
ANOTHER_FOLDER = "Choose another folder with --artifacts DIR."
A_COPY = "Ask its owner for access, or work in your own copy of the artifact folder: --artifacts COPY."
"""For what needs the runs or the data of this one."""


class DiskError(PtkError):
    """The disk doesn't do what it should: exit code 3, because the output of a stage is missing."""

    exit_code = 3
    kind = "disk"


class NoSpaceError(DiskError):
    """The disk is full."""


def is_denied(error: OSError) -> bool:
    """Whether this user may not read or write there, or nobody may write."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def unreadable_at(path: Path) -> Path | None:
    """Why ``path`` can't be read: a folder above it that this user may not enter, or itself; None where it can be."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            return folder if os.path.lexists(folder) else None
    if not os.path.lexists(path) or os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return None
    return path


def denied(error: OSError, path: Path | str | None = None, instead: str = "") -> tuple[str, str]:
    """What this user may not do, and what helps: a message and a hint.

    Args:
        error: see `is_denied`.
        path: where; None: as ``error`` says.
        instead: what helps where it can't be written.
    """
    place = Path(os.fsdecode(path or error.filename or "."))
    if error.errno == errno.EROFS:
        return f"{place} is on a read-only file system.", instead or "Use a copy of it that can be written."
    closed = unreadable_at(place)
    there = closed or next((each for each in (place, *place.parents) if os.path.lexists(each)), place)
    owned = hasattr(os, "getuid") and there.lstat().st_uid == os.getuid()
    hint = f"It is yours: chmod u+rwX {there}" if owned else "Ask its owner for access, or use another one."
    done = "read" if closed else "written"
    return f"{there} can't be {done}: {error.strerror}.", (not closed and instead) or hint


def check_writable(folder: Path, instead: str = ANOTHER_FOLDER) -> None:
    """Check that files can be written to ``folder``, before long work whose result goes there.

    Args:
        folder: which need not exist yet.
        instead: what the user can do.

    Raises:
        UsageError: they can't.
    """
    with writing_to(folder, instead):
        there = existing_folder(folder)
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(there)) from error


@contextlib.contextmanager
def writing_to(folder: Path, instead: str = ANOTHER_FOLDER) -> Iterator[None]:
    """Turn the system's refusals to write under ``folder`` into errors that say what to do: ``instead``."""
    try:
        yield
    except PtkError:
        raise
    except Exception as error:
        refused = first_refusal(error) if isinstance(error, OSError) else _within(error)
        told = _explained(refused, folder, instead) if refused is not None else None
        if told is None:
            raise
        raise told from error


def first_refusal(error: OSError) -> OSError:
    """``error``, or the first that it lists: copying a folder collects the refusals of all files, as text."""
    if not isinstance(error, shutil.Error) or not error.args or not isinstance(error.args[0], list):
        return error
    source, target, why = error.args[0][0]
    match = re.match(r"\[Errno (\d+)\]", str(why))
    return OSError(int(match[1]), os.strerror(int(match[1])), source, None, target) if match else error


def _within(error: Exception) -> OSError | None:
    """The system's refusal that another library's error quotes: safetensors, tokenizers and torch have their own."""
    text = str(error)
    if match := re.search(r"\(os error (\d+)\)", text):  # as Rust writes them
        return OSError(int(match[1]), os.strerror(int(match[1])))
    number = next((number for number in (*FULL, errno.EIO, errno.EFBIG) if os.strerror(number) in text), None)
    return OSError(number, os.strerror(number)) if number is not None else None


def _explained(error: OSError, folder: Path, instead: str) -> PtkError | None:
    """What ``error`` means for a user; None where the disk has nothing to do with it."""
    where = error.filename or folder
    if isinstance(error, PermissionError):
        return UsageError(*denied(error, where, instead))
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return UsageError(f"{where} is a file, but a folder is needed there.", instead)
    if error.errno == errno.EROFS:
        return UsageError(f"{folder} is on a read-only file system.", instead)
    return not_followed(error) or disk_error(error, folder)


def not_followed(error: OSError) -> UsageError | None:
    """What to say of a link in the place of a file that ptk opens only itself, as a lock; None for another error."""
    if error.errno != errno.ELOOP or error.filename is None or not Path(os.fsdecode(error.filename)).is_symlink():
        return None
    link = Path(os.fsdecode(error.filename))
    return UsageError(f"{link} is a link, and ptk follows none there.", "Remove the link; what it names stays.")


def disk_error(error: OSError, folder: Path | None = None) -> DiskError | None:
    """What to say of a full or failing disk, or a limit to files; None for another error.

    The place is ``folder``, or what ``error`` says.
    """
    place = error.filename2 or error.filename  # of a copy, the second is the one that is written
    folder = folder or (Path(place).parent if place else None)
    where = f"the disk of {folder}" if folder is not None else "a disk that this command writes to"
    if error.errno in FULL:
        free = f" ({byte_size(shutil.disk_usage(existing_folder(folder)).free)} free)" if folder is not None else ""
        return NoSpaceError(
            f"No space left on {where}{free}.",
            "Free some space, or choose another folder with --artifacts DIR. Everything that was complete is kept.",
        )
    if error.errno == errno.EFBIG:
        place = f"A file in {folder}" if folder is not None else "A file that this command writes"
        return DiskError(
            f"{place} would be larger than this process may write.",
            "Raise the limit (ulimit -f unlimited), or check the file system's. Everything that was complete is kept.",
        )
    if error.errno == errno.EIO:
        return DiskError(
            f"{where[:1].upper()}{where[1:]} reports an error: {error.strerror}.",
            "Check the disk, then run the command again. Everything that was complete is kept.",
        )
    return None


def check_no_links(*folders: Path) -> None:
    """Check that none of these is a link to a folder: what is written or replaced there may be another's.

    Raises:
        UsageError: one is; nothing was touched.
    """
    for folder in folders:
        if folder.is_symlink() and folder.is_dir():
            raise UsageError(
                f"{folder} is a link to another folder, and ptk writes through none there.",
                "Put a folder in its place. The whole artifact folder may be a link.",
            )


def check_decodable(path: Path | str, instead: str) -> None:
    """Refuse a file or folder that every library has to open, but whose name some can't take.

    Args:
        path: as typed.
        instead: what the user can do.

    Raises:
        UsageError: its name has bytes that aren't UTF-8.
    """
    if any(0xDC80 <= ord(character) <= 0xDCFF for character in str(path)):
        raise UsageError(f"The name {path} isn't UTF-8, and some libraries can't open such files.", instead)


def existing_folder(path: Path) -> Path:
    """``path`` if it exists, else the nearest folder above it that does."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
