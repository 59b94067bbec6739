"""Finds the files that the inputs name."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import xxhash

from pretrain_cli.addresses import is_redacted
from pretrain_cli.data.reading.formats import COMPRESSIONS, ENDINGS, format_of
from pretrain_cli.data.reading.input_files import STDIN, InputFile, is_url
from pretrain_cli.errors import DataError, MissingDependencyError
from pretrain_cli.storage import user_path

HOW_TO_OPEN = "http(s): pip install 'pretrain-cli[http]'; s3: pip install s3fs; gs: pip install gcsfs."
VERSION_KEYS = (
    *("ETag", "etag", "LastModified", "last_modified", "last_commit", "mtime", "modified", "created", "md5Hash"),
)
"""What file systems call the version of a file; an fsspec ``info`` has one or none of them."""


def find_files(paths: Sequence[str], source: int = 0) -> list[InputFile]:
    """Every file that ``paths`` name, in the order given; a folder's files in the order of their names.

    Raises:
        DataError: a path doesn't exist, or a folder holds no text.
        MissingDependencyError: an address needs a package that isn't installed.
    """
    found: list[InputFile] = []
    seen: set[str] = set()
    for path in paths:
        for file in _expand(path, source):
            if file.path not in seen:
                seen.add(file.path)
                found.append(file)
    return found


def check_unchanged(files: Sequence[InputFile]) -> None:
    """Compare the files on this machine with what they were when they were found.

    Raises:
        DataError: a file has been written to since, so that what was read is neither the old nor the new text.
    """
    for file in files:
        if file.path == STDIN or is_url(file.path) or not file.modified_ns:
            continue
        try:
            now = Path(file.path).stat()
        except OSError as error:
            raise DataError(
                f"{file.path} is gone: {error.strerror}.", "Run the command again once the input is complete."
            ) from error
        if (now.st_size, now.st_mtime_ns) != (file.size, file.modified_ns):
            raise DataError(
                f"{file.path} changed while it was being read.", "Run the command again once the input is complete."
            )


def _expand(path: str, source: int) -> list[InputFile]:
    if path == STDIN:
        return [InputFile(STDIN, -1, 0, "text", source=source)]
    if path.startswith("hf://datasets/") and not format_of(path)[0] and not glob.has_magic(path):
        return [InputFile(path, -1, 0, "hub", source=source)]
    if is_url(path):
        return _expand_url(path, source)
    local = user_path(path.removeprefix("file://"))
    if local.is_dir():
        return _folder(local, source)
    if local.exists():
        return [_describe(local, source)]
    matches = sorted(glob.glob(str(local), recursive=True))
    if matches:
        files = [file for match in matches for file in (_folder_or_file(Path(match), source))]
        if files:
            return files
    raise DataError(f"{path} doesn't exist.", "Check the path. Put a glob in quotes if the shell doesn't expand it.")


def _folder_or_file(path: Path, source: int) -> list[InputFile]:
    if path.is_dir():
        return []
    return [_describe(path, source)]


def _folder(folder: Path, source: int) -> list[InputFile]:
    """The readable files under ``folder``, sorted by name, without hidden files and unknown formats."""
    files = [
        _describe(entry, source)
        for entry in sorted(folder.rglob("*"))
        if entry.is_file() and not entry.name.startswith(".") and format_of(entry.name)[0]
    ]
    if not files:
        raise DataError(
            f"{folder} holds no text file.",
            f"Formats that can be read: {' '.join(ENDINGS)}, also with {' '.join(COMPRESSIONS)}.",
        )
    return files


def _describe(path: Path, source: int) -> InputFile:
    try:
        status = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error
    format, compression = format_of(path.name)
    return InputFile(str(path), status.st_size, status.st_mtime_ns, format or "text", compression, source)


def _version_number(info: Mapping[str, object]) -> int:
    versions = [str(info[name]) for name in VERSION_KEYS if info.get(name)]
    return int(xxhash.xxh3_64_intdigest("|".join(versions).encode()) >> 1) if versions else 0


def _expand_url(path: str, source: int) -> list[InputFile]:
    if is_redacted(path):
        raise DataError(
            f"{path} is an address without its user, password or query, as ptk writes it down.",
            "Give the whole address.",
        )
    import fsspec

    protocol = path.split("://", 1)[0]
    try:
        system, _, matches = fsspec.get_fs_token_paths(path)
        if len(matches) == 1 and system.isdir(matches[0]):
            matches = sorted(name for name in system.find(matches[0]) if format_of(name)[0])
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
