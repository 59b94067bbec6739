"""Which files do the inputs name, and of what kind is each?"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from pretrain_cli.errors import DataError, MissingDependencyError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
FORMATS = {
    ".txt": "text", ".text": "text", ".md": "text", ".rst": "text", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
    ".html": "html", ".htm": "html", ".pdf": "pdf", ".docx": "docx", ".epub": "epub",
}  # fmt: skip
STDIN = "-"
HOW_TO_OPEN = "http(s): pip install 'pretrain-cli[http]'; s3: pip install s3fs; gs: pip install gcsfs."
CHANGE_MARKS = (
    "ETag",
    "etag",
    "LastModified",
    "last_modified",
    "last_commit",
    "mtime",
    "modified",
    "created",
    "md5Hash",
)
"""What file systems call the version of a file; an fsspec ``info`` has one or none of them."""


@dataclass(frozen=True)
class InputFile:
    """One file (or URL) to read. ``size`` is in bytes as stored, -1 where it can't be known.

    ``modified_ns``: of a URL, a number that follows from whatever its system says about its version.
    """

    path: str
    size: int
    modified_ns: int
    format: str
    compression: str = ""
    source: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def find_files(paths: Sequence[str], source: int = 0) -> list[InputFile]:
    """Every file that ``paths`` name, in the order given; a folder's files in the order of their names.

    Raises:
        DataError: a path that isn't there, or a folder without text.
        MissingDependencyError: an address whose file system needs a package.
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
    """Compare the files of this machine with what they were when they were found.

    Raises:
        DataError: one has been written to since: what was read of it is neither the old nor the new text.
    """
    for file in files:
        if file.path == STDIN or is_url(file.path) or not file.modified_ns:
            continue
        try:
            now = Path(file.path).stat()
        except OSError as error:
            raise DataError(
                f"{file.path} is gone: {error.strerror}.", "Run it again once the input is complete."
            ) from error
        if (now.st_size, now.st_mtime_ns) != (file.size, file.modified_ns):
            raise DataError(f"{file.path} has changed while it was read.", "Run it again once the input is complete.")


def _expand(path: str, source: int) -> list[InputFile]:
    if path == STDIN:
        return [InputFile(STDIN, -1, 0, "text", source=source)]
    if path.startswith("hf://datasets/") and not _kind(path)[0] and not glob.has_magic(path):
        return [InputFile(path, -1, 0, "hub", source=source)]
    if is_url(path):
        return _expand_url(path, source)
    local = Path(path.removeprefix("file://")).expanduser()
    if local.is_dir():
        return _folder(local, source)
    if local.exists():
        return [_describe(local, source)]
    matches = sorted(glob.glob(str(local), recursive=True))
    if matches:
        files = [file for match in matches for file in (_folder_or_file(Path(match), source))]
        if files:
            return files
    raise DataError(f"{path} doesn't exist.", "Check the path; globs need quotes where the shell doesn't expand them.")


def _folder_or_file(path: Path, source: int) -> list[InputFile]:
    if path.is_dir():
        return []
    return [_describe(path, source)]


def _folder(folder: Path, source: int) -> list[InputFile]:
    """The readable files under ``folder``, sorted by name; hidden ones and unknown kinds are left alone."""
    files = [
        _describe(entry, source)
        for entry in sorted(folder.rglob("*"))
        if entry.is_file() and not entry.name.startswith(".") and _kind(entry.name)[0]
    ]
    if not files:
        raise DataError(
            f"{folder} holds no text file.", f"Readable kinds: {' '.join(FORMATS)}, and their gz, bz2, xz, zst forms."
        )
    return files


def _describe(path: Path, source: int) -> InputFile:
    try:
        status = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error
    kind, compression = _kind(path.name)
    return InputFile(str(path), status.st_size, status.st_mtime_ns, kind or "text", compression, source)


def _kind(name: str) -> tuple[str, str]:
    """(format, compression) by the name's endings; an unknown ending gives an empty format."""
    stem, ending = os.path.splitext(name.lower())
    compression = COMPRESSIONS.get(ending, "")
    if compression:
        ending = os.path.splitext(stem)[1]
    return FORMATS.get(ending, ""), compression


def _change(info: dict[str, Any]) -> int:
    marks = [str(info[name]) for name in CHANGE_MARKS if info.get(name)]
    return int(xxhash.xxh3_64_intdigest("|".join(marks).encode()) >> 1) if marks else 0


def _expand_url(path: str, source: int) -> list[InputFile]:
    import fsspec

    protocol = path.split("://", 1)[0]
    try:
        system, _, matches = fsspec.get_fs_token_paths(path)
        if len(matches) == 1 and system.isdir(matches[0]):
            matches = sorted(name for name in system.find(matches[0]) if _kind(name)[0])
        if not matches:
            raise FileNotFoundError(path)
        described = []
        for match in sorted(matches):
            kind, compression = _kind(match.partition("?")[0] if protocol.startswith("http") else match)
            info = system.info(match)
            size = info.get("size")
            url = match if "://" in match else f"{protocol}://{match}"
            described.append(
                InputFile(url, -1 if size is None else int(size), _change(info), kind or "text", compression, source)
            )
    except ImportError as error:
        raise MissingDependencyError(f"{path} needs a package: {error}.", HOW_TO_OPEN) from error
    except ValueError as error:
        raise DataError(f"{path} can't be opened: {error}.", HOW_TO_OPEN) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} doesn't exist.", "Check the address.") from error
    except Exception as error:  # every file system raises its own kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} can't be opened: {reason}.", "Check the address, the network and the login."
        ) from error
    return described
