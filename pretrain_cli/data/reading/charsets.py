"""Finds the encoding of a plain text file."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from pretrain_cli.data.reading.binary import CONTROLS, check_signature, looks_binary, not_text
from pretrain_cli.errors import DataError

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which is the beginning of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DETECTED_BYTES = 1 << 18
"""Of a file's beginning, from which an encoding is guessed."""
WIDE_BYTES = 1 << 14
"""The same for UTF-16 and UTF-32, which a little text tells."""
JAPANESE_ESCAPES = re.compile(rb"\x1b\$[@B]")
LEAST_TOLD = 1000
"""Bytes of text from which `charset_normalizer` is right to rule cp1252 out."""
INSIDE_WORDS = re.compile("(?<=[a-z])[^\x00-\x7f](?=[a-z])")
ODD_SHARE = 0.1
"""Of the characters in the middle of a word, that are no small letters; with more, cp1252 is the wrong encoding."""
MIXED_LEAST, MIXED_SHARE = 5, 0.2
STRANGE_SHARE = 0.02
"""Of characters that are neither printable nor space; with more, an encoding is the wrong one."""


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
    check_signature(head, path)
    if wanted != "auto":
        try:
            return Encoding(codecs.lookup(wanted).name)
        except LookupError as error:
            raise DataError(
                f"'{wanted}' isn't a known encoding.", "Examples: utf-8, latin-1, cp1252, gb18030."
            ) from error
    if looks_binary(head):
        return _wide_encoding(head, path)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, complete)
        # Written in ASCII bytes, with escapes before what isn't: it would pass for UTF-8.
        return Encoding("iso2022_jp_2", guessed=True) if JAPANESE_ESCAPES.search(head) else Encoding("utf-8")
    except UnicodeDecodeError as error:
        return _guess(head, path, error.start)


def _wide_encoding(head: bytes, path: str) -> Encoding:
    """UTF-16 or UTF-32 without a byte-order mark, in which ASCII characters have NUL bytes; else it is no text."""
    from charset_normalizer import from_bytes

    start = head[: min(len(head), WIDE_BYTES) // 4 * 4]
    best = from_bytes(start).best()
    if best is not None and best.encoding.startswith(("utf_16", "utf_32")):
        text = str(best)
        strange = sum(not (character.isprintable() or character.isspace()) for character in text)
        if strange < STRANGE_SHARE * len(text):
            return Encoding(best.encoding.replace("_", "-"), guessed=True)
    raise not_text(path, next((at for at in range(len(head)) if head[at] < 9 or head[at] in CONTROLS), 0))


def _guess(head: bytes, path: str, bad: int) -> Encoding:
    # Control bytes other than whitespace don't occur in any single-byte text encoding's prose.
    controls = sum(byte < 9 or 13 < byte < 32 for byte in head[:65536])
    if controls > len(head[:65536]) * 0.02:
        return _wide_encoding(head, path)
    if _is_damaged_utf8(head):
        raise damaged(path, "UTF-8", bad)
    from charset_normalizer import from_bytes

    start = head[:DETECTED_BYTES]
    matches = list(from_bytes(start))
    best = matches[0] if matches else None
    # On short Western text, rare code pages score as high as the common one, which is then the better guess.
    if best is not None and best.encoding.startswith(("mac_", "cp", "latin", "iso8859", "hp_")):
        if _is_mixed(start):
            raise DataError(
                f"{path} is UTF-8 in some places and isn't in others (the first at byte {bad:,}).",
                "Convert it to UTF-8 part by part: files in several encodings were joined. "
                "Or skip such files with --on-error skip.",
            )
        likely = any("cp1252" in match.could_be_from_charset for match in matches)
        if _western(start) and (likely or len(start) < LEAST_TOLD or best.encoding.startswith("hp_")):
            return Encoding("cp1252", guessed=True)
    if best is None:
        raise DataError(
            f"{path} isn't UTF-8 (byte {bad:,}), and its encoding can't be detected.",
            "If you know it, set it: --set data.encoding=NAME. Or skip such files with --on-error skip.",
        )
    return Encoding(best.encoding, guessed=True)


def damaged(path: str, encoding: str, bad: int) -> DataError:
    """The error of a text with some wrong bytes, the first of them at ``bad``.

    Another encoding is no remedy: it would make other characters of all the right ones.
    """
    repair = "iconv -c -f utf-8 -t utf-8 FILE > NEW drops the wrong bytes" if encoding == "UTF-8" else "repair it"
    return DataError(
        f"{path} is {encoding}, but damaged at byte {bad:,}.",
        f"To keep the rest, {repair}; or skip such files with --on-error skip.",
    )


def _is_damaged_utf8(raw: bytes) -> bool:
    """Far more UTF-8 sequences than bytes that fit none; in other encodings' text such sequences hardly occur."""
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return len(text.encode("ascii", "ignore")) + 11 * wrong < len(text)


def _is_mixed(raw: bytes) -> bool:
    """Whether many characters are UTF-8 sequences, which hardly occur in the text of an encoding with one byte each."""
    text = raw.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    right = sum(not char.isascii() for char in text) - wrong
    return right >= MIXED_LEAST and right >= MIXED_SHARE * wrong


def is_western(raw: bytes) -> bool:
    """Whether text goes on in a Western encoding after some in ASCII: more than a few damaged bytes."""
    wrong = raw.decode("utf-8", "replace").count("\ufffd")
    return wrong >= MIXED_LEAST and not _is_damaged_utf8(raw) and _western(raw)


def _western(raw: bytes) -> bool:
    """Mostly ASCII, with lone high bytes here and there, which cp1252 makes letters of where letters are expected."""
    if sum(byte > 127 for byte in raw) >= 0.3 * len(raw):
        return False
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return False
    inside: list[str] = INSIDE_WORDS.findall(text)
    odd = sum(not char.isalpha() or char.isupper() for char in inside if char not in "’‘´·-")
    return odd <= ODD_SHARE * len(inside)
