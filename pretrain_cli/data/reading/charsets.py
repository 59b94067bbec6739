"""How do bytes become text? UTF-8 with or without a mark, UTF-16, UTF-32, else detected and reported."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from pretrain_cli.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which is the beginning of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
BINARY_SIGNATURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"PK\x03\x04",
    b"\x7fELF",
    b"%PDF",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PAR1",
    b"MZ\x90",
)


@dataclass(frozen=True)
class Encoding:
    """An encoding's name, the bytes of its mark, and whether it had to be guessed."""

    name: str
    mark: int = 0
    guessed: bool = False


def find_encoding(head: bytes, wanted: str, path: str, whole: bool) -> Encoding:
    """The encoding of a file that begins with ``head``; ``whole``: head is all of it.

    Raises:
        DataError: the bytes aren't text, or ``wanted`` is no encoding.
    """
    for mark, name in MARKS:
        if head.startswith(mark) and not (name != "utf-8" and wanted not in ("auto", name, name[:6])):
            return Encoding(name, len(mark))
    if wanted != "auto":
        try:
            return Encoding(codecs.lookup(wanted).name)
        except LookupError as error:
            raise DataError(
                f"'{wanted}' is no known encoding.", "Examples: utf-8, latin-1, cp1252, gb18030."
            ) from error
    if head.startswith(BINARY_SIGNATURES):
        raise DataError(f"{path} is a binary file, not text (byte 0).", "Name text files, or convert it to text first.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, whole)
        return Encoding("utf-8")
    except UnicodeDecodeError as error:
        return _guess(head, path, error.start)


def _guess(head: bytes, path: str, bad: int) -> Encoding:
    # Control bytes other than whitespace don't occur in any single-byte text encoding's prose.
    controls = sum(byte < 9 or 13 < byte < 32 for byte in head[:65536])
    if controls > len(head[:65536]) * 0.02:
        raise DataError(
            f"{path} is a binary file, not text (byte {bad}).", "Name text files, or set data.encoding if it is text."
        )
    if _is_damaged_utf8(head):
        raise DataError(
            f"{path} is UTF-8, but damaged at byte {bad}.",
            "Mend it (iconv -c -f utf-8 -t utf-8), name its encoding with data.encoding, or --on-error skip.",
        )
    from charset_normalizer import from_bytes

    start = head[:262144]
    matches = list(from_bytes(start))
    best = matches[0] if matches else None
    # On short Western text rare code pages come out level with the common one, which is then the better guess.
    if best is not None and best.encoding.startswith(("mac_", "cp", "latin", "iso8859")):
        try:
            start.decode("cp1252")
            if _western(start):
                return Encoding("cp1252", guessed=True)
        except UnicodeDecodeError:
            pass
    if best is None:
        raise DataError(
            f"{path} isn't UTF-8 (byte {bad}), and its encoding can't be told.", "Say it: --set data.encoding=latin-1"
        )
    return Encoding(best.encoding, guessed=True)


def _is_damaged_utf8(raw: bytes) -> bool:
    """Far more UTF-8 sequences than bytes that fit none; in other encodings' text such sequences hardly occur."""
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return len(text.encode("ascii", "ignore")) + 11 * wrong < len(text)


def _western(raw: bytes) -> bool:
    """Mostly ASCII, with lone high bytes here and there, as in Western European prose."""
    high = sum(byte > 127 for byte in raw)
    return high < 0.3 * len(raw)
