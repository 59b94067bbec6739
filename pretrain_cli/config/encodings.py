"""Checks the name of a text encoding."""

from __future__ import annotations

import codecs

NOT_FOR_FILES = ("idna", "punycode", "undefined")
"""Python's encodings of host names, and one that always fails."""


def check_encoding(name: str) -> str:
    """``name``, if files can be in that encoding, or "auto".

    Raises:
        ValueError: there is no such encoding, or it doesn't make text of bytes, as rot13 and base64 don't.
    """
    if name == "auto":
        return name
    try:
        known = codecs.lookup(name).name not in NOT_FOR_FILES
        b"a".decode(name)
    except UnicodeDecodeError:  # half a character
        pass
    except (LookupError, ValueError):  # a name may hold what no name can
        known = False
    if not known:
        raise ValueError("isn't a text encoding, such as utf-8, latin-1, cp1252 or gb18030")
    return name
