"""Reads a small file that is plainly one document of UTF-8 text by one call; others are left to their readers."""

from __future__ import annotations

import codecs
import os

from pretrain_cli.data.reading.binary import CONTROLS, LFS_POINTER, SIGNATURES
from pretrain_cli.data.reading.charsets import ESCAPES
from pretrain_cli.data.reading.input_files import STDIN, Span, is_url
from pretrain_cli.data.reading.json_sniffing import BEGINS_HTML
from pretrain_cli.data.reading.table_sniffing import separator_of
from pretrain_cli.small_files import NONBLOCK

SMALL_BYTES = 1 << 16
NO_TEXT = bytes([0, *CONTROLS])
LOOKED_AT = 64
OTHER_STARTS = (
    codecs.BOM_UTF8,
    LFS_POINTER,
    *(start for start, _, _ in SIGNATURES if not start.isalnum() and start.translate(None, NO_TEXT) == start),
)
"""Beginnings without a control byte that a reader has to look at. Those like words are followed by such bytes."""


def read_small(path: str, size: int) -> bytes | None:
    """The bytes of a small file in one read, four times as fast as by ``open``; None where it isn't ``size`` long.

    Raises:
        OSError: it can't be read.
    """
    handle = os.open(path, os.O_RDONLY | NONBLOCK | getattr(os, "O_BINARY", 0))
    try:
        content = os.read(handle, size + 1)
    finally:
        os.close(handle)
    return content if len(content) == size else None


def read_simple(span: Span) -> tuple[str, bytes] | None:
    """The text of a file and its bytes; None where only `plain_text.read_text` can tell what it is.

    What is given is what that reader would give, with no separator and no encoding named: text without control bytes
    that can't be JSON, and is neither empty nor blank.
    """
    file = span.file
    if file.format != "text" or not 0 < file.size <= SMALL_BYTES or file.compression or span.start or span.end >= 0:
        return None
    if file.path == STDIN or is_url(file.path):
        return None
    try:
        content = read_small(file.path, file.size)
        text = content.decode() if content is not None else ""
    except (OSError, UnicodeDecodeError):
        return None
    if content is None or text.isspace() or len(content.translate(None, NO_TEXT)) < len(content):
        return None
    if content[:LOOKED_AT].lstrip()[:1] in (b"{", b"[", b"") or content.startswith(OTHER_STARTS):
        return None
    if BEGINS_HTML.match(content) or ESCAPES.search(content) or separator_of(content):
        return None
    return None if content[4:8] == b"ftyp" else (text, content)
