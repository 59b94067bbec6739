"""Walks a folder: each file in it is read, or left out with a reason."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pretrain_cli.data.reading.file_table import FileTable
from pretrain_cli.data.reading.formats import format_of
from pretrain_cli.data.reading.input_files import kind_of, plain_ending
from pretrain_cli.data.reading.splits import left_out
from pretrain_cli.errors import DataError
from pretrain_cli.formatting import shortened
from pretrain_cli.trees import walk

REASONS = {
    "unknown_ending": "with another ending",
    "hidden_file": "hidden",
    "hidden_folder": "in hidden folders",
    "program_folder": "in folders of programs and systems",
    "artifact_folder": "in ptk's own folder",
    "model_folder": "of models",
    "lock_file": "left by an open Word or Excel",
    "test_split": "of the test split",
    "validation_split": "of the validation split",
    "dataset_card": "as a data set's card",
    "dataset_metadata": "as a data set's records",
    "broken_link": "linked to nothing",
    "linked_twice": "linked to a file that is read",
    "special_file": "a pipe, socket or device",
    "unreadable": "without permission",
    "empty": "empty",
    "no_text_found": "without text",
    "unreadable_file": "that can't be read",
    "too_long": "too long",
    "too_slow": "that take too long to read",
}
"""Why a file isn't read → in words."""
PROGRAM_FOLDERS = {
    *("__pycache__", "node_modules", "__MACOSX", "site-packages"),
    *("$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found"),
}
PROGRAM_ENDINGS = (".egg-info", ".dist-info")
ARTIFACTS_OWN = ("data", "tokenizer", "runs")
"""Folders in an artifact folder that tell it, and are left out where that is read itself."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
EXAMPLES = 3
KINDS_SHOWN = 5
NO_ENDING = "no ending"


@dataclass
class FoundFiles:
    """Files of one kind: how many, their bytes, and the paths of the first."""

    files: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, path: str, size: int, files: int = 1) -> None:
        self.files += files
        self.bytes += max(0, size)
        if path and len(self.examples) < EXAMPLES:
            self.examples.append(path)


@dataclass
class Account:
    """What the inputs hold: files that are read, by kind, and those left out, by reason and kind.

    Attributes:
        folders: how many of the inputs are folders.
        read, skipped: the files.
        unreadable_folders: that may not be listed, or are nested too deep: what they hold isn't known.
        linked_folders: links to folders that were read already.
        named: files that are inputs themselves: they are read, whatever a walk says.
        own: the artifact folder, which isn't read where it lies within an input; empty for none.
    """

    folders: int = 0
    read: dict[str, FoundFiles] = field(default_factory=dict)
    skipped: dict[tuple[str, str], FoundFiles] = field(default_factory=dict)
    unreadable_folders: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    own: str = ""

    def take(self, path: str, size: int) -> None:
        self.read.setdefault(kind_of(path) or NO_ENDING, FoundFiles()).add("", size)

    def take_all(self, files: FileTable) -> None:
        """Files that are read."""
        for kind, (many, size) in files.endings().items():
            group = self.read.setdefault(kind or NO_ENDING, FoundFiles())
            group.files += many
            group.bytes += size

    def skip(self, reason: str, path: str, size: int, kind: str = "", files: int = 1) -> None:
        if path in self.named:
            return
        kind = kind or kind_of(path) or NO_ENDING
        self.skipped.setdefault((reason, kind), FoundFiles()).add(path, size, files)

    def told_skipped(self) -> str:
        """In words: "5 with another ending (png 3, doc 2), 7 in hidden folders (.git 7)"; empty for none."""
        reasons: dict[str, dict[str, int]] = {}
        for (reason, kind), group in self.skipped.items():
            reasons.setdefault(reason, {})[kind] = group.files
        return told_reasons(reasons)


def told_kinds(kinds: Mapping[str, int]) -> str:
    """In words: "png 3, doc 2", the most frequent first."""
    most = sorted(kinds.items(), key=lambda item: -item[1])
    rest = sum(number for _, number in most[KINDS_SHOWN:])
    shown = [f"{kind} {number:,}" for kind, number in most[:KINDS_SHOWN]]
    return ", ".join([*shown, f"others {rest:,}"] if rest else shown)


def told_reasons(reasons: Mapping[str, Mapping[str, int]]) -> str:
    """In words: "5 with another ending (png 3, doc 2); 2 hidden (txt 2)"."""
    return "; ".join(
        f"{sum(kinds.values()):,} {REASONS.get(reason, reason.replace('_', ' '))} ({told_kinds(kinds)})"
        for reason, kinds in reasons.items()
    )


@dataclass
class _Listed:
    """What a folder holds, by name: whether each entry is a link, a folder or a file, and the state of the files."""

    entries: list[tuple[str, str, os.stat_result | OSError | None]]
    identity: tuple[int, int] = (0, 0)
    error: OSError | None = None


LINK, FOLDER, FILE = "link", "folder", "file"
MOST_LEVELS = 200
"""Of folders in folders; a person makes ten."""
AHEAD = 8
"""Folders that are listed while those before them are taken, on a disk whose answers have to be waited for."""
QUICK_ENTRY_S = 30e-6
"""A disk that takes no longer than this for an entry is listed by one thread: more would only hinder each other."""


def _list(folder: str) -> _Listed:
    listed = _Listed([])
    try:
        status = os.stat(folder)
        listed.identity = (status.st_dev, status.st_ino)
        with os.scandir(folder) as scan:
            for entry in scan:
                if entry.is_symlink():
                    listed.entries.append((entry.name, LINK, None))
                elif entry.is_dir():
                    listed.entries.append((entry.name, FOLDER, None))
                else:
                    listed.entries.append((entry.name, FILE, _state(entry)))
    except OSError as error:
        listed.error = error
    listed.entries.sort(key=lambda entry: entry[0])
    return listed


def _state(entry: os.DirEntry[str]) -> os.stat_result | OSError:
    try:
        return entry.stat(follow_symlinks=False) if os.name != "nt" else os.stat(entry.path)
    except OSError as error:
        return error


@dataclass
class _Walk:
    root: str
    account: Account
    strict: bool
    source: int
    lister: ThreadPoolExecutor
    slow: bool = False
    kinds: dict[str, tuple[str, int]] = field(default_factory=dict)
    found: FileTable = field(default_factory=FileTable)
    links: list[str] = field(default_factory=list)
    visited: set[tuple[int, int]] = field(default_factory=set)

    def folder(self, folder: str, listing: Future[_Listed] | None = None, depth: int = 0) -> None:
        """Take all that is in a folder; links wait until all else is known."""
        listed = listing.result() if listing is not None else self._list_now(folder)
        if depth > MOST_LEVELS:
            listed.error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if listed.error is None and listed.identity in self.visited:  # a link led there before
            self.account.linked_folders.append(folder)
            return
        self.visited.add(listed.identity)
        if listed.error is not None:
            self._refuse(folder, listed.error)
            self.account.unreadable_folders.append(shortened(folder))
            return
        base = os.path.join(folder, "")
        place = self.found.folder(base)
        inside = iter([name for name, kind, _ in listed.entries if kind == FOLDER and not self._reason(base + name)])
        ahead: deque[Future[_Listed]] = deque()
        for name, kind, state in listed.entries:
            if kind == LINK:
                self.links.append(base + name)
            elif kind == FILE:
                self._file(base, place, name, state)
            elif reason := self._reason(base + name):
                self._count_all(base + name, reason)
            elif not self.slow and not ahead:
                self.folder(base + next(inside), depth=depth + 1)
            else:
                for following in itertools.islice(inside, AHEAD - len(ahead)):
                    ahead.append(self.lister.submit(_list, base + following))
                self.folder(base + name, ahead.popleft(), depth + 1)

    def _reason(self, folder: str) -> str:
        """Why a folder isn't read; empty if it is."""
        return _folder_reason(folder) or ("artifact_folder" if _is_artifacts(folder, self.account.own) else "")

    def _list_now(self, folder: str) -> _Listed:
        started = time.perf_counter()
        listed = _list(folder)
        self.slow = time.perf_counter() - started > QUICK_ENTRY_S * (len(listed.entries) + 10)
        return listed

    def _file(self, base: str, place: int, name: str, state: os.stat_result | OSError | None) -> None:
        if state is None or isinstance(state, OSError):
            self._refuse(base + name, state or OSError(2, os.strerror(2)))
            self.account.skip("unreadable", base + name, 0)
            return
        format, kind = self._kind(name)
        reason = _file_reason(name, state.st_mode, format)
        if not reason and not state.st_size and os.path.realpath(base + name).startswith(OF_SYSTEM):
            reason = "special_file"
        if not reason and not _may_be_read(base + name, state.st_mode):
            self._refuse(base + name, PermissionError(13, "Permission denied"))
            reason = "unreadable"
        if reason:
            self.account.skip(reason, base + name, state.st_size)
            return
        self.found.add(place, name, kind, state.st_size, state.st_mtime_ns, state.st_ctime_ns)

    def _kind(self, name: str) -> tuple[str, int]:
        """(format, number of its kind in the table) of a file."""
        ending = plain_ending(name)
        known = self.kinds.get(ending) if ending else None
        if known is None:
            format, compression = format_of(name)
            known = format, self.found.kind(format, compression, self.source, kind_of(name))
            self.kinds[ending] = known
        return known

    def follow_links(self) -> None:
        """Take what links lead to, each file once."""
        read = {os.path.realpath(self.found.path(at)) for at in range(len(self.found))} if self.links else set()
        while self.links:
            path = self.links.pop(0)
            try:
                status = os.stat(path)
            except OSError:  # it leads nowhere, or in a circle
                self.account.skip("broken_link", path, 0)
                continue
            target = os.path.realpath(path)
            if stat.S_ISDIR(status.st_mode):
                before = len(self.found)
                self._follow_folder(path, target, (status.st_dev, status.st_ino))
                read |= {os.path.realpath(self.found.path(at)) for at in range(before, len(self.found))}
            elif target in read:
                self.account.skip("linked_twice", path, status.st_size)
            else:
                read.add(target)
                folder, name = os.path.split(path)
                base = os.path.join(folder, "")
                self._file(base, self.found.folder(base), name, status)

    def _follow_folder(self, path: str, target: str, identity: tuple[int, int]) -> None:
        if reason := self._reason(path):
            self._count_all(path, reason)
        elif identity in self.visited or Path(target) in Path(os.path.realpath(self.root)).parents:
            self.account.linked_folders.append(path)
        else:
            self.folder(path)

    def _count_all(self, folder: str, reason: str) -> None:
        """Count the files of a folder that isn't read, under its own name."""
        if os.path.islink(folder):
            self.account.linked_folders.append(folder)
            return
        files = size = 0
        for _, entries in walk(folder):
            found = [entry for entry in entries if not _is_folder(entry)]
            files += len(found)
            size += sum(_size(entry.path) for entry in found)
        self.account.skip(reason, folder, size, kind=os.path.basename(folder), files=files)

    def _refuse(self, path: str, error: OSError) -> None:
        if self.strict and error.errno == errno.ENAMETOOLONG:
            raise DataError(
                f"{self.root} holds folders that are nested too deep to be read: {shortened(path)}.",
                "Move what is in them up, or leave them out with --on-error skip.",
            ) from error
        if self.strict:
            raise DataError(
                f"{path} can't be read: {error.strerror}.",
                "Check its permissions, or leave it out with --on-error skip.",
            ) from error


def walk_folder(root: Path, account: Account, strict: bool = True, source: int = 0) -> FileTable:
    """The files of a folder that are read, in the order of their names; ``account`` gets the others.

    Hidden files and folders aren't read, nor endings that no format has, nor a data set's test split and card beside
    its train split, nor models and what ptk wrote itself. Links are followed, each folder and file once.

    Raises:
        DataError: a file or a folder may not be read, if ``strict``.
    """
    with ThreadPoolExecutor(AHEAD) as lister:
        walk = _Walk(str(root), account, strict, source, lister)
        walk.folder(walk.root)
        many = len(walk.found)
        walk.follow_links()
    found = walk.found
    places: Sequence[int] = range(len(found))
    if len(found) > many:  # what links lead to came last
        places = sorted(places, key=lambda at: found.path(at).split(os.sep))
    reasons = left_out(walk.root, found)
    account.folders += 1
    for place in sorted(reasons, key=found.path):
        account.skip(reasons[place], found.path(place), found.sizes[place])
    if reasons or len(found) > many:
        return found.chosen(place for place in places if place not in reasons)
    return found


def _folder_reason(folder: str) -> str:
    name = os.path.basename(folder)
    if name.startswith("."):
        return "hidden_folder"
    has_file = _has_file(folder)
    if name in PROGRAM_FOLDERS or name.endswith(PROGRAM_ENDINGS) or has_file("pyvenv.cfg"):
        return "program_folder"
    return "model_folder" if has_file("config.json") and any(map(has_file, WEIGHTS)) else ""


OF_SYSTEM = ("/proc/", "/sys/", "/dev/")
"""Linked from a folder, a file of no size there isn't empty: /proc/kmsg waits for ever, and others hold this process's
variables."""


def _has_file(folder: str) -> Callable[[str], bool]:
    return lambda name: os.path.isfile(os.path.join(folder, name))


def _is_artifacts(folder: str, own: str) -> bool:
    """Whether a folder is the artifact folder ``own``, a part of it, or another that ptk prepared in."""
    parent, name = os.path.split(folder)
    if own and name == os.path.basename(own) and os.path.realpath(folder) == own:
        return True
    has_file = _has_file(folder)
    if name in ARTIFACTS_OWN and own and os.path.realpath(parent) == own:
        return name != "data" or has_file("manifest.json")
    return has_file("data/manifest.json") and has_file("tokenizer/tokenizer.json")


def _file_reason(name: str, mode: int, format: str) -> str:
    if not stat.S_ISREG(mode):
        return "special_file"
    if name.startswith("~$"):
        return "lock_file"
    if name.startswith("."):
        return "hidden_file"
    return "" if format else "unknown_ending"


def _may_be_read(path: str, mode: int) -> bool:
    """Whether this process may read a file; where all may, the system needn't be asked."""
    return mode & 0o444 == 0o444 or os.access(path, os.R_OK)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is one, or a link to one; a link that leads nowhere, or to itself, is a file like others."""
    try:
        return entry.is_dir()
    except OSError:
        return False
