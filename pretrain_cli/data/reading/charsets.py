"""Finds the encoding of a plain text file."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import NamedTuple
from unicodedata import category
from unicodedata import name as character_name

from pretrain_cli.data.reading.binary import CONTROLS, check_signature, looks_binary, not_text
from pretrain_cli.errors import DataError

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which is the beginning of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DETECTED_BYTES = 1 << 17
"""Of text that isn't ASCII, from which an encoding is guessed."""
WIDE_BYTES = 1 << 14
"""The same for UTF-16 and UTF-32, which a little text tells."""
SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""Half a character of UTF-16, as some programs write it into UTF-8."""
ASCII_RUN = re.compile(rb"[\t\r\n\x20-\x7e]{64}")
"""Stands in no text of UTF-16 or UTF-32."""
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
ESCAPES = re.compile(rb"\x1b\$[@B(+)]|\x0e|~\{|\+[A-Za-z0-9+/]{3,}-")
"""May begin what isn't ASCII in encodings that are written in ASCII bytes: ISO-2022, HZ and UTF-7."""
ESCAPED = ("iso2022", "hz", "utf-7")
DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?([A-Za-z0-9_.:-]+)""")
PRESCANNED_BYTES = 1024
SUPERSETS = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "tis-620": "cp874", "gb2312": "gb18030"}
"""What is meant by the name of an encoding (https://encoding.spec.whatwg.org)."""
SURE, LIKELY, POSSIBLE = 0.15, 0.12, 0.06
"""Confidences of chardet: it was wrong about no text of 500 bytes or more with the first; a sign here and there in
English has less than the second; what is no text at all has less than the third."""
UNUSED = ("hp-roman8",)
"""Fits Western text as well as the common encodings do, and none is written in it."""
TIED = 0.98
"""Share of the best guess's confidence from which on another one is as good."""
INSIDE_WORDS = re.compile("(?<=[a-z])[^\x00-\x7f](?=[a-z])")
BEFORE_LATIN = re.compile("(?<![a-zA-Z])[^\x00-\x7f](?=[a-z])")
ODD_SHARE = 0.1
"""Of the characters in a word, that are no small letters; with more, an encoding is the wrong one."""
LETTERS = re.compile(r"[^\W\d_\x00-\x7f]")
AFTER_LATIN = re.compile(f"(?<=[a-z]){LETTERS.pattern}")
MIXED_WORDS = 0.3
"""Of the letters that aren't ASCII, those of other scripts that follow a small Latin one; with more, it is wrong."""
MIXED_LEAST, MIXED_SHARE = 5, 0.2
LATIN_SHARE = 0.3
"""Of bytes that aren't ASCII: the text of Latin letters has fewer."""
STRANGE_SHARE = 0.02
"""Of characters that are neither printable nor space; with more, an encoding is the wrong one."""
SCRIPTS = 4
"""In a short text; bytes that count up make a letter of each."""
CONTROL_CHARACTERS = re.compile("[\x80-\x9f]")
"""What the Windows encodings have printable characters for, and those of ISO don't."""
WORDS = re.compile(r"[^\W\d_]*[^\W\d_\x00-\x7f][^\W\d_]*")
WORDS_SHOWN, LONGEST_SHOWN = 3, 30


@dataclass(frozen=True)
class Encoding:
    """A file's encoding.

    Attributes:
        name: Python's.
        mark_bytes: of the byte-order mark.
        guessed: from the bytes; nothing else told it.
        doubt: why the guess may be wrong, in words; empty where it is sure.
        words: the first that aren't ASCII, as this encoding makes them.
    """

    name: str
    mark_bytes: int = 0
    guessed: bool = False
    doubt: str = ""
    words: tuple[str, ...] = ()


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
    if escaped := _escaped_encoding(head):
        return escaped
    if looks_binary(head):
        return _wide_encoding(head, path)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, complete)
        return Encoding("utf-8")
    except UnicodeDecodeError as error:
        return _guess(head, path, error.start)


def find_page_encoding(raw: bytes, wanted: str, path: str) -> Encoding:
    """The encoding of a page of HTML: as it declares itself, if that can be, else as of any text.

    Raises:
        DataError: as of any text.
    """
    declared = DECLARED.search(raw[:PRESCANNED_BYTES])
    marked = raw.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS))
    if wanted != "auto" or declared is None or marked or _is_utf8(raw):  # as many pages, it may say what it isn't
        return find_encoding(raw, wanted, path, complete=True)
    try:
        name = codecs.lookup(declared.group(1).decode()).name
        name = SUPERSETS.get(name, name)
        raw.decode(name)
        if name != "cp1252" or _western(raw):
            return Encoding(name)
    except (LookupError, UnicodeDecodeError):
        pass
    return find_encoding(raw, wanted, path, complete=True)


def _escaped_encoding(head: bytes) -> Encoding | None:
    """An encoding in ASCII bytes, with escapes before what isn't ASCII: it would pass for UTF-8."""
    if not (found := ESCAPES.search(head)) or not head.isascii():
        return None
    from chardet import detect

    start = max(0, head.rfind(b"\n", 0, found.start()))
    name = str(detect(head[start : start + DETECTED_BYTES], compat_names=False)["encoding"])
    return Encoding(name, guessed=True) if name.startswith(ESCAPED) else None


def _wide_encoding(head: bytes, path: str) -> Encoding:
    """UTF-16 or UTF-32 without a byte-order mark, else it is no text.

    It is the one in which the characters are from the fewest parts of Unicode: with the wrong order of bytes, a
    language's letters are all over it. (chardet takes Thai for the other order.)
    """
    start = head[: min(len(head), WIDE_BYTES) // 4 * 4]
    found: list[tuple[int, str]] = []
    if run := ASCII_RUN.search(start):  # text before or after it: joined files, or a damaged one
        raise not_text(path, next((at for at in range(len(head)) if head[at] == 0 and at > run.start()), 0))
    for name in WIDE:
        try:
            text = codecs.getincrementaldecoder(name)().decode(start)
        except UnicodeDecodeError:
            continue
        strange = sum(not (char.isprintable() or char.isspace() or category(char) == "Cf") for char in text)
        if text and strange < STRANGE_SHARE * len(text) and len(_scripts(text)) <= max(SCRIPTS, len(text) // 4):
            found.append((len({ord(char) >> 7 for char in text}), name))
    if found:
        return Encoding(min(found)[1], guessed=True)
    raise not_text(path, next((at for at in range(len(head)) if head[at] < 9 or head[at] in CONTROLS), 0))


def _scripts(text: str) -> set[str]:
    """The first words of the characters' names, such as LATIN or CJK."""
    return {character_name(char, "").partition(" ")[0] for char in text if char.isalpha()}


def _guess(head: bytes, path: str, bad: int) -> Encoding:
    # Control bytes other than whitespace don't occur in any single-byte text encoding's prose.
    controls = sum(byte < 9 or 13 < byte < 32 for byte in head[:65536])
    if controls > len(head[:65536]) * 0.02:
        return _wide_encoding(head, path)
    if _is_damaged_utf8(head) or _has_surrogates(head):
        raise damaged(path, "UTF-8", bad)
    # What is ASCII tells nothing, and a preface in English may be longer than what is looked at. What a page declares
    # is known to be wrong here, and chardet would believe it.
    start = DECLARED.sub(b"", b"\n".join(line for line in head.split(b"\n") if not line.isascii())[:DETECTED_BYTES])
    guesses = _guesses(start)
    if guesses and guesses[0].name in WIDE:
        return _wide_encoding(head, path)
    if _is_mixed(start):
        raise DataError(
            f"{path} is UTF-8 in some places and isn't in others (the first at byte {bad:,}).",
            "Convert it to UTF-8 part by part: files in several encodings were joined. "
            "Or skip such files with --on-error skip.",
        )
    best, *others = [*guesses, _Guess("", 0.0, "")]
    little = "there is little in it to tell by"
    # A sign here and there in English tells no language; this encoding is the commonest.
    western = start.decode("cp1252") if _western(start) else ""
    if western and western != best.text and (best.confidence < LIKELY or not _words(western)):
        return Encoding("cp1252", 0, True, little, _words(western))
    if best.confidence < POSSIBLE:
        likely = f" NAME may be {best.name}." if best.name else ""
        raise DataError(
            f"{path} isn't UTF-8 (byte {bad:,}), and its encoding can't be detected.",
            f"If you know it, set it: --set data.encoding=NAME.{likely} Or skip such files with --on-error skip.",
        )
    doubt = f"{others[0].name} fits it as well" if len(others) > 1 else little if best.confidence < SURE else ""
    return Encoding(best.name, 0, True, doubt, _words(best.text))


class _Guess(NamedTuple):
    name: str
    confidence: float
    text: str


def _guesses(raw: bytes) -> list[_Guess]:
    """The encoding that chardet finds likeliest, and those as likely that make another text of ``raw``."""
    from chardet import detect_all

    guesses: list[_Guess] = []
    for found in detect_all(raw, max_bytes=DETECTED_BYTES, compat_names=False, exclude_encodings=UNUSED):
        name, confidence = SUPERSETS.get(str(found["encoding"]), str(found["encoding"])), found["confidence"]
        if guesses and confidence < TIED * guesses[0].confidence:
            break
        try:
            text = codecs.getincrementaldecoder(name)().decode(raw)
        except (UnicodeDecodeError, LookupError):
            continue
        if _fits(text) and all(text != guess.text for guess in guesses):
            guesses.append(_Guess(name.replace("utf_", "utf-"), confidence, text))
    # An encoding of ISO isn't as likely as one of Windows where it makes control characters of its quotes and dashes.
    controls = [len(CONTROL_CHARACTERS.findall(guess.text)) for guess in guesses]
    fewest = min(controls, default=0)
    return [guess for guess, count in zip(guesses, controls, strict=True) if count == fewest]


def _fits(text: str) -> bool:
    """Whether what isn't ASCII stands where it may: in words of small Latin letters stand few of other scripts."""
    sample = text[:WIDE_BYTES]
    odd = sum(not character_name(char, "").startswith("LATIN") for char in AFTER_LATIN.findall(sample))
    return odd <= MIXED_WORDS * len(LETTERS.findall(sample)) and _is_smooth(sample)


def _is_smooth(text: str) -> bool:
    """Whether few of the characters beside small Latin letters are capitals or signs, such as those that draw boxes."""
    inside = [char for char in INSIDE_WORDS.findall(text) if char not in "’‘´·-"]
    odd = sum((not char.isalpha() and category(char) != "Mn") or char.isupper() for char in inside)
    before = [category(char) in ("So", "Sm") for char in BEFORE_LATIN.findall(text)]
    return odd <= ODD_SHARE * len(inside) and sum(before) <= ODD_SHARE * len(before)


def _words(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(word.group()[:LONGEST_SHOWN] for word in WORDS.finditer(text))
    return tuple(words)[:WORDS_SHOWN]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


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


def _has_surrogates(head: bytes) -> bool:
    """Whether it is UTF-8 but for halves of characters."""
    without = SURROGATE.sub(b"", head)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(without)
    except UnicodeDecodeError:
        return False
    return len(without) < len(head)


def _is_mixed(raw: bytes) -> bool:
    """Whether many characters are UTF-8, in lines of their own, or among Latin letters.

    In an encoding of other letters, and in those with several bytes for each, some sequences are UTF-8 by accident.
    """
    lines = raw.decode("utf-8", "replace").split("\n")
    wrong = sum(line.count("\ufffd") for line in lines)
    latin = sum(byte > 127 for byte in raw) < LATIN_SHARE * len(raw)
    right = sum(_not_ascii(line) - line.count("\ufffd") for line in lines if latin or "\ufffd" not in line)
    return right >= MIXED_LEAST and right >= MIXED_SHARE * wrong


def _not_ascii(text: str) -> int:
    return sum(not char.isascii() for char in text)


def is_western(raw: bytes) -> bool:
    """Whether text goes on in a Western encoding after some in ASCII: more than a few damaged bytes."""
    wrong = raw.decode("utf-8", "replace").count("\ufffd")
    return wrong >= MIXED_LEAST and not _is_damaged_utf8(raw) and _western(raw)


def _western(raw: bytes) -> bool:
    """Mostly ASCII, with lone high bytes here and there, which cp1252 makes letters of where letters are expected."""
    if sum(byte > 127 for byte in raw) >= LATIN_SHARE * len(raw):
        return False
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return _is_smooth(text)
