"""Reads HTML, PDF, DOCX and EPUB files, each as one document."""

from __future__ import annotations

import io
import os
import signal
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from typing import IO

from pretrain_cli.bounded import BoundedProcess
from pretrain_cli.data.reading import extraction
from pretrain_cli.data.reading.charsets import find_page_encoding
from pretrain_cli.data.reading.documents import UNREADABLE_HINT, Document, Record, Rejected
from pretrain_cli.data.reading.extraction import PACKAGES, TooLongError
from pretrain_cli.data.reading.input_files import Span, read_at_most
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError, MissingDependencyError
from pretrain_cli.formatting import byte_size
from pretrain_cli.optional import to_install

LEAST_S, S_PER_MB = 60, 30
"""Seconds of a core that a document may take: far more than an honest one does. A PDF takes 6 for a MB of its pages."""
TIMES_WAITED = 10
"""A core may be shared, and Windows bounds no process's time on a core."""
LEAST_MEMORY, TIMES_MEMORY = 4_000_000_000, 20
_IDLE: dict[int, deque[BoundedProcess]] = {}
"""Processes that wait for a document, of this process and of any that it was forked from, which aren't ours."""


class TooSlowError(Exception):
    """A document that takes more time to read than its size allows."""


def read_rich_text(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The file as one document."""
    path = span.file.name
    raw = read_at_most(stream, settings.max_record_bytes)
    if raw is None or _unpacked(raw, span.file.format) > settings.max_record_bytes:
        yield settings.too_long(path, 0, 0, len(raw) if raw is not None else settings.max_record_bytes)
        return
    if not raw:
        yield Rejected(path, 0, 0, 0, "empty")
        return
    size = len(raw)
    if span.file.format == "html":
        encoding = find_page_encoding(raw, settings.encoding, path)
        settings.say_guess(path, encoding)
        raw = raw[encoding.mark_bytes :].decode(encoding.name, "replace").encode()
    try:
        text = _extracted(raw, span.file.format, path, settings.max_record_bytes)
    except TooLongError:
        yield settings.too_long(path, 0, 0, size)
        return
    except TooSlowError as error:
        yield Rejected(path, 0, 0, size, "too_slow", str(error))
        return
    settings.skip("markup", max(0, size - len(text.encode())))
    yield Document(text, path) if text.strip() else Rejected(path, 0, 0, 0, "no_text_found")


def _unpacked(raw: bytes, format: str) -> int:
    """Bytes of all that a file of this format packs; 0 if it packs nothing. `zipfile` unpacks no more than it says."""
    if format not in ("docx", "epub"):
        return 0
    try:
        return sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(raw)).infolist())
    except Exception:  # zipfile raises nearly anything for a damaged file; reading it says what is wrong
        return 0


def _extracted(raw: bytes, format: str, path: str, most: int) -> str:
    """The text of a document, got out of it in a process of its own.

    Raises:
        TooLongError: it has more than ``most`` characters.
        TooSlowError: it takes too long.
        MissingDependencyError: its library isn't installed.
        DataError: it is damaged, or takes too much memory.
    """
    seconds = LEAST_S + S_PER_MB * len(raw) // 1_000_000
    memory = LEAST_MEMORY + TIMES_MEMORY * len(raw)
    question = {"format": format, "most": most, "seconds": seconds, "most_memory": memory}
    idle = _IDLE.setdefault(os.getpid(), deque())
    try:
        process, is_new = idle.pop(), False
    except IndexError:
        process, is_new = BoundedProcess(extraction.__name__), True
    started = time.monotonic()
    try:
        answered = process.ask(question, raw, patience_s=TIMES_WAITED * seconds)
    except BaseException:  # Ctrl-C: nobody waits for the answer any more
        process.close()
        raise
    if answered is None:
        late = time.monotonic() - started >= TIMES_WAITED * seconds
        late = process.ended_by() == getattr(signal, "SIGXCPU", None) or late
        process.close()
        if late:
            raise TooSlowError(f"reading it takes more than {seconds:,} s")
        if not is_new:  # it may have ended before this document
            return _extracted(raw, format, path, most)
        needs = f"needs over {byte_size(memory)} of memory"
        raise DataError(f"{path} can't be read: the process that reads it crashed, or {needs}.", UNREADABLE_HINT)
    values, text = answered
    if "error" in values:  # without memory, a library may be left damaged
        process.close()
        raise DataError(f"{path} can't be read: {values['error']}.", UNREADABLE_HINT)
    idle.append(process)
    if "missing" in values:
        raise MissingDependencyError(
            f"Reading {path} needs {PACKAGES[format]} ({values['missing']}).", to_install(extra="documents")
        )
    if "too_long" in values:
        raise TooLongError
    return text.decode("utf-8", "surrogatepass")
