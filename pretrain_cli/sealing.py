"""Puts the hash of a text into the text itself, so that whoever reads it notices a changed byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import xxhash

from pretrain_cli.small_files import no_wait, small_bytes

KEY = "xxh3"
OPEN = "0" * 32
"""Stands for the hash while it is computed: the xxh3-128 of the text with this in its place."""
SEAL = re.compile(rb'xxh3[": ]{1,4}(.{0,32})')
WITHIN = 200
"""Bytes at the start of a text that hold its seal: one that is cut short keeps it."""
CHANGED = "has other bytes than ptk wrote"
YOURS = 'If you changed it yourself, remove the line with "xxh3".'


def open_seal(before: str = "# ", after: str = "") -> str:
    """A line with a seal that `sealed` fills in, in the comment signs of a format."""
    return f"{before}{KEY}: {OPEN}{after}\n"


def with_open_seal(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object whose first key is a seal that `sealed` fills in."""
    return {KEY: OPEN, **{key: each for key, each in value.items() if key != KEY}}


def sealed(text: str) -> str:
    """``text``, which begins with an open seal, with its hash in there."""
    content = text.encode("utf-8", "backslashreplace")  # as storage.write_text writes it
    return text.replace(OPEN, str(xxhash.xxh3_128_hexdigest(content)), 1)


def is_as_sealed(content: bytes) -> bool | None:
    """Whether these are the bytes that were sealed; None where there is no seal, as ptk 0.1.0 wrote none."""
    found = SEAL.search(content, 0, WITHIN)
    if found is None:
        return None
    opened = b"".join((content[: found.start(1)], OPEN.encode(), content[found.end(1) :]))
    return bool(xxhash.xxh3_128_hexdigest(opened).encode() == found[1])


def bears_seal(path: Path) -> bool:
    """Whether a file was sealed once, changed since or not."""
    try:
        with open(path, "rb", opener=no_wait) as file:
            return SEAL.search(file.read(WITHIN)) is not None
    except OSError:
        return False


def broken_seal(path: Path) -> str:
    """What is wrong with a sealed file, in a sentence's words; empty where nothing is, or where it has no seal.

    Raises:
        OSError: it can't be read.
    """
    return f"{path} {CHANGED}" if is_as_sealed(small_bytes(path)) is False else ""
