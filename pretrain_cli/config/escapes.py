"""Decodes the backslash escapes in a text that was typed on one line."""

from __future__ import annotations

import re

NAMED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
ESCAPE = re.compile(r"\\(?:(?P<named>[ntr\\])|x(?P<two>[0-9A-Fa-f]{2})|u(?![Dd][89A-Fa-f])(?P<four>[0-9A-Fa-f]{4}))")
"""``\\n \\t \\r \\\\``, ``\\xNN`` and ``\\uNNNN``; not half a surrogate pair, which no text holds."""


def decode_escapes(text: str) -> str:
    """``text`` with these escapes decoded, and everything else as it is."""
    return ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    named = found["named"]
    return NAMED[named] if named else chr(int(found["two"] or found["four"], 16))
