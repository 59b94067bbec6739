"""Tells by its beginning that a file without an ending, or with that of a text, is JSON or HTML."""

from __future__ import annotations

import codecs
import json
import re
from typing import IO

JSON_KINDS = {"jsonl": "JSON lines", "json": "JSON"}
LINES_LOOKED_AT = 20
BEGINS_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
BEGINS_JSON = re.compile(r'(\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:\s*["\[{\dtfn-]')


def starts_like_json(stream: IO[bytes]) -> bool:
    """Whether the first character may begin JSON; where that can't be seen without reading it, it may."""
    peek = getattr(stream, "peek", None)
    start = bytes(peek(64)) if peek else b"{"
    return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[", b"")


def starts_like_html(stream: IO[bytes]) -> bool:
    """Whether it begins as a page of HTML does; where that can't be seen without reading it, it doesn't."""
    peek = getattr(stream, "peek", None)
    start = bytes(peek(64)) if peek else b""
    return bool(BEGINS_HTML.match(start.removeprefix(codecs.BOM_UTF8)))


def kind_of_json(head: bytes, complete: bool) -> str:
    """ "jsonl" for a file of lines that are each an object, "json" for one object or a list of them, else "".

    ``complete``: ``head`` is all of the file.
    """
    text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
    lines = text.split("\n")
    whole = [line for line in (lines if complete else lines[:-1]) if line.strip()][:LINES_LOOKED_AT]
    if whole and all(_is_object(_parse(line)) for line in whole):
        return "jsonl"
    if complete:
        value = _parse(text)
        first = value[0] if isinstance(value, list) and value else value
        return "json" if _is_object(first) else ""
    return "json" if BEGINS_JSON.match(text.lstrip()) else ""


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
