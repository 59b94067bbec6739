"""Finds the encoding of a plain text file."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from pretrain_cli.errors import DataError

BYTE_ORDER_MARKS = (
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
    """An encoding's name, the bytes of the file's byte-order mark, and whether the encoding had to be guessed."""

    name: str
    mark_bytes: int = 0
    guessed: bool = False


def find_encoding(head: bytes, wanted: str, path: str, complete: bool) -> Encoding:
    """The encoding of a file: by its byte-order mark, else as ``wanted``, else UTF-8, else detected.

    Args:
        head: the file's first bytes.
        wanted: an encoding's name, or "auto".
        path: for error messages.
        complete: ``head`` is all of the file.

    Raises:
        DataError: the bytes aren't text, or ``wanted`` isn't an encoding.
    """
    for mark, name in BYTE_ORDER_MARKS:
        if head.startswith(mark) and not (name != "utf-8" and wanted not in ("auto", name, name[:6])):
            return Encoding(name, len(mark))
    if wanted != "auto":
        try:
            return Encoding(codecs.lookup(wanted).name)
        except LookupError as error:
            raise DataError(
                f"'{wanted}' isn't a known encoding.", "Examples: utf-8, latin-1, cp1252, gb18030."
            ) from error
    if head.startswith(BINARY_SIGNATURES):
        raise DataError(f"{path} is a binary file, not text (byte 0).", "Give text files, or convert it to text first.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, complete)
        return Encoding("utf-8")
    except UnicodeDecodeError as error:
        return _guess(head, path, error.start)


def _guess(head: bytes, path: str, bad: int) -> Encoding:
    # Control bytes other than whitespace don't occur in any single-byte text encoding's prose.
    controls = sum(byte < 9 or 13 < byte < 32 for byte in head[:65536])
    if controls > len(head[:65536]) * 0.02:
        raise DataError(
            f"{path} is a binary file, not text (byte {bad:,}).", "Give text files, or set data.encoding if it is text."
        )
    if _is_damaged_utf8(head):
        raise DataError(
            f"{path} is UTF-8, but damaged at byte {bad:,}.",
            "Fix it (iconv -c -f utf-8 -t utf-8), set its encoding with data.encoding, or use --on-error skip.",
        )
    from charset_normalizer import from_bytes

    start = head[:262144]
    matches = list(from_bytes(start))
    best = matches[0] if matches else None
    # On short Western text, rare code pages score as high as the common one, which is then the better guess.
    if best is not None and best.encoding.startswith(("mac_", "cp", "latin", "iso8859")):
        try:
            start.decode("cp1252")
            if _western(start):
                return Encoding("cp1252", guessed=True)
        except UnicodeDecodeError:
            pass
    if best is None:
        raise DataError(
            f"{path} isn't UTF-8 (byte {bad:,}), and its encoding can't be detected.",
            "Set it: --set data.encoding=latin-1",
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
