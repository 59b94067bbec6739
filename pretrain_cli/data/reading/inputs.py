"""Finds the files that the inputs name."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import xxhash

from pretrain_cli.addresses import is_redacted
from pretrain_cli.data.reading import globs
from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.folders import Account, walk_folder
from pretrain_cli.data.reading.formats import COMPRESSIONS, ENDINGS, format_of
from pretrain_cli.data.reading.input_files import PIPE, STDIN, InputFile, is_url
from pretrain_cli.data.reading.pipes import check_kind, is_pipe
from pretrain_cli.errors import DataError, MissingDependencyError
from pretrain_cli.file_systems import fsspec_module
from pretrain_cli.optional import to_install
from pretrain_cli.storage import user_path

HOW_TO_OPEN = f"http(s): {to_install(extra='http')}; gs: {to_install('gcsfs')}; s3 needs no package."
VERSION_KEYS = (
    *("ETag", "etag", "LastModified", "last_modified", "last_commit", "mtime", "modified", "created", "md5Hash"),
)
"""What file systems call the version of a file; an fsspec ``info`` has one or none of them."""


def find_files(paths: Sequence[str], source: int = 0, account: Account | None = None, strict: bool = True) -> FileTable:
    """Every file that ``paths`` name, in the order given; a folder's files in the order of their names.

    Args:
        paths: as typed.
        source: number of the source that they are of.
        account: is told of each file that is read or left out.
        strict: whether what may not be read in a folder is an error; otherwise it is left out.

    Raises:
        DataError: a path doesn't exist, or a folder holds no text.
        MissingDependencyError: an address needs a package that isn't installed.
    """
    account = Account() if account is None else account
    account.named |= {name for path in paths if not is_url(path) for name in _named(path)}
    found = FileTable()
    for path in paths:
        files = _expand(path, source, account, strict)
        if found:
            found.extend(files)
        else:
            found = files
    if len(paths) > 1:
        found = _each_once(found)
    account.take_all(found)
    return found


def _each_once(files: FileTable) -> FileTable:
    first_of: dict[str, int] = {}
    for place in range(len(files)):
        first_of.setdefault(files.path(place), place)
    firsts = first_of.values()
    return files if len(firsts) == len(files) else files.chosen(firsts)


def check_unchanged(files: FileTable) -> None:
    """Compare the files on this machine with what they were when they were found.

    Raises:
        DataError: a file has been written to since, so that what was read is neither the old nor the new text.
    """
    for place, (size, modified_ns) in enumerate(zip(files.sizes, files.modified_ns, strict=True)):
        path = files.path(place)
        if path == STDIN or is_url(path) or not modified_ns:
            continue
        try:
            now = os.stat(path)
        except OSError as error:
            raise DataError(
                f"{path} is gone: {error.strerror}.", "Run the command again once the input is complete."
            ) from error
        if (now.st_size, now.st_mtime_ns) != (size, modified_ns):
            raise DataError(
                f"{path} changed while it was being read.", "Run the command again once the input is complete."
            )


def _named(path: str) -> list[str]:
    """The files on this machine that a path names, which isn't a folder."""
    local = str(user_path(path.removeprefix("file://")))
    return globs.matches(local) if glob.has_magic(local) else [local]


def _expand(path: str, source: int, account: Account, strict: bool) -> FileTable:
    if path == STDIN:
        return FileTable([InputFile(STDIN, -1, 0, "text", source=source)])
    if path.startswith("hf://datasets/") and not format_of(path)[0] and not glob.has_magic(path):
        return FileTable([InputFile(path, -1, 0, "hub", source=source)])
    if is_url(path):
        return FileTable(_expand_url(path, source, account))
    local = user_path(path.removeprefix("file://"))
    if local.is_dir():
        return _folder(local, source, account, strict)
    if local.exists():
        return _described([local], source)
    found = FileTable()
    for match in map(Path, globs.matches(str(local))):
        if not match.is_dir():
            found.extend(_described([match], source))
        elif "**" not in path:  # which matches what is in them too
            found.extend(_folder(match, source, account, strict))
    if found:
        return found
    raise DataError(f"{path} doesn't exist.", "Check the path. Put a glob in quotes if the shell doesn't expand it.")


def _folder(folder: Path, source: int, account: Account, strict: bool) -> FileTable:
    """The readable files under ``folder``, sorted by name."""
    files = walk_folder(folder, account, strict, source)
    if not files:
        left = account.told_skipped()
        raise DataError(
            f"{folder} holds no text that can be read{f': {left}' if left else ''}.",
            f"Formats that can be read: {' '.join(ENDINGS)}, also with {' '.join(COMPRESSIONS)}.",
        )
    return files


def _described(paths: Sequence[Path], source: int) -> FileTable:
    """Files that are named."""
    table = FileTable()
    for path in paths:
        try:
            status = path.stat()
            if not os.access(path, os.R_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error
        format, compression = format_of(path.name)
        check_kind(path, status.st_mode)
        pipe = is_pipe(status.st_mode)
        size, modified_ns = (PIPE, 0) if pipe else (status.st_size, status.st_mtime_ns)
        file = InputFile(str(path), size, modified_ns, format or "text", compression, source)
        table.append(file, 0 if pipe else status.st_ctime_ns)
    return table


def _read_of_folder(found: Mapping[str, Mapping[str, object]], account: Account) -> list[str]:
    """The files of a folder at an address that are read; ``account`` gets the others."""
    read = []
    for name in sorted(found):
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts[-2:])
        if format_of(name)[0] and not hidden and not parts[-1].startswith("~$"):
            read.append(name)
        else:
            size = found[name].get("size")
            account.skip("hidden_file" if hidden else "unknown_ending", name, size if isinstance(size, int) else 0)
    account.folders += 1
    return read


def _version_number(info: Mapping[str, object]) -> int:
    versions = [str(info[name]) for name in VERSION_KEYS if info.get(name)]
    return int(xxhash.xxh3_64_intdigest("|".join(versions).encode()) >> 1) if versions else 0


def _expand_url(path: str, source: int, account: Account) -> list[InputFile]:
    if is_redacted(path):
        raise DataError(
            f"{path} is an address without its user, password or query, as ptk writes it down.",
            "Give the whole address.",
        )
    fsspec = fsspec_module()
    protocol = path.split("://", 1)[0]
    try:
        system, _, matches = fsspec.get_fs_token_paths(path)
        if len(matches) == 1 and system.isdir(matches[0]):
            matches = _read_of_folder(system.find(matches[0], detail=True), account)
        if not matches:
            raise FileNotFoundError(path)
        described = []
        for match in sorted(matches):
            format, compression = format_of(match.partition("?")[0] if protocol.startswith("http") else match)
            info = system.info(match)
            size = info.get("size")
            url = match if "://" in match else f"{protocol}://{match}"
            described.append(
                InputFile(
                    url, -1 if size is None else int(size), _version_number(info), format or "text", compression, source
                )
            )
    except ImportError as error:
        raise MissingDependencyError(f"{path} needs a package: {error}.", HOW_TO_OPEN) from error
    except ValueError as error:
        raise DataError(f"{path} can't be opened: {error}.", HOW_TO_OPEN) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} doesn't exist.", "Check the address.") from error
    except Exception as error:  # each file system raises errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} can't be opened: {reason}.", "Check the address, the network and the login."
        ) from error
    return described
