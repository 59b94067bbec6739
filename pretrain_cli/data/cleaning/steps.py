"""Cleans documents by named steps, each of which keeps, changes or drops a text."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from pretrain_cli.data.cleaning.web_quality import Outcome, c4, fineweb, gopher_quality, gopher_repetition
from pretrain_cli.errors import ConfigError, MissingDependencyError
from pretrain_cli.optional import to_install

Step = Callable[[str], Outcome]

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""The characters of category Cc, but for tab and line ends."""
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
IP = re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")
PHONE = re.compile(r"(?<![\w.,])[+(]?\d[\d ()/.-]{6,20}\d(?!\w)")
MAY_BE_IP = re.compile(r"[0-9]\.[0-9]")
MAY_BE_PHONE = re.compile(r"\d[\d ()/.-]{6,20}\d")
"""In every text with such an address or number: quick to look for, as they begin with one kind of character."""
OTHER_NUMBER = re.compile(r"\d{4}-\d\d-\d\d|97[89][- ]|\d{1,3}( \d{3})+$|\d{4} ?- ?\d{4}\b|\d+\.\d+$")
"""A date, an ISBN, thousands, a span of years, a decimal number."""


def ftfy(text: str) -> Outcome:
    """Fix mojibake with `ftfy` (extra `documents`)."""
    try:
        import ftfy as library
    except ImportError as error:
        raise MissingDependencyError("The step 'ftfy' needs ftfy.", to_install(extra="documents")) from error
    if (calm := _fixed_quotes(text)) is not None:
        return calm, ""
    if "<" in text:  # what is an HTML entity depends on the lines before
        return library.fix_text(text), ""
    lines = ((line, _fixed_quotes(line)) for line in LINE.findall(text))
    return "".join(library.fix_text(line) if calm is None else calm for line, calm in lines), ""


def _fixed_quotes(text: str) -> str | None:
    """What ftfy makes of text in which it changes the quotes at most; None where it may change more."""
    from ftfy.badness import is_bad
    from ftfy.fixes import uncurl_quotes

    if not CALM.fullmatch(text):
        return None
    if text.isascii():
        return text
    if is_bad("\n".join(_beyond_ascii(text))):
        return None
    fixed: str = uncurl_quotes(text)
    return fixed


def _beyond_ascii(text: str) -> Iterator[str]:
    """The characters that aren't ASCII, with those around them: all that ftfy's search for mojibake can find."""
    start = end = 0
    for found in BEYOND_ASCII.finditer(text):
        if found.start() - MOJIBAKE > end:
            yield text[start:end]
            start = found.start() - MOJIBAKE
        end = found.end() + MOJIBAKE
    yield text[start:end]


LINE = re.compile(r"[^\n]*\n|[^\n]+")
CALM = re.compile(
    r"[\t\n\x20-%'-~\xa1-\xc1\xc4-\u0131\u0134-\u0148\u014a-\u017f\u2013\u2014\u2018-\u201f\u2022\u2026]*"
)
"""ASCII without controls and &, dashes, quotes, Latin letters but for ligatures and for Â and Ã, signs of mojibake."""
BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
MOJIBAKE = 6
"""What ftfy takes for mojibake is at most 7 characters, one of which isn't ASCII; ftfy's own search is slow."""


def nfc(text: str) -> Outcome:
    """Unicode normalization form C."""
    return unicodedata.normalize("NFC", text), ""


def newlines(text: str) -> Outcome:
    """CRLF and CR become LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n"), ""


def control(text: str) -> Outcome:
    """Remove control characters other than tab and line ends."""
    return CONTROL.sub("", text), ""


def min_length(text: str) -> Outcome:
    """Drop documents under 200 characters."""
    return text, "too_short" if len(text) < 200 else ""


def personal_data(text: str) -> Outcome:
    """Replace email addresses, IPv4 addresses and phone numbers with <email>, <ip> and <phone>."""
    if "@" in text:
        text = EMAIL.sub("<email>", text)
    if MAY_BE_IP.search(text):
        text = IP.sub("<ip>", text)
    return (PHONE.sub(_phone, text) if MAY_BE_PHONE.search(text) else text), ""


def _phone(found: re.Match[str]) -> str:
    """Nine to fifteen digits (E.164) in groups, or with a + or 0 in front, that aren't something else."""
    number = found.group()
    grouped = not number.isdecimal() or number.startswith("0")
    is_phone = 9 <= sum(map(str.isdecimal, number)) <= 15 and grouped and not OTHER_NUMBER.match(number)
    return "<phone>" if is_phone else number


def language(code: str) -> Step:
    """Keep documents in one language (ISO 639-1), told by py3langid from the first 4,000 characters."""

    def step(text: str) -> Outcome:
        try:
            import py3langid
        except ImportError as error:
            raise MissingDependencyError(
                "The step 'language' needs py3langid.", to_install(extra="documents")
            ) from error
        return text, "" if py3langid.classify(text[:4000])[0] == code else "other_language"

    return step


STEPS: dict[str, Step] = {
    step.__name__.replace("_", "-"): step
    for step in (
        ftfy, nfc, newlines, control, min_length, gopher_quality, gopher_repetition, c4, fineweb, personal_data,
    )
}  # fmt: skip


BY_LINES = frozenset({"newlines", "control", "nfc", "personal-data"})
"""Steps that change each line by itself, and drop nothing: a text may go through them in pieces."""


def find_step(name: str) -> Step:
    """The step called ``name``; ``language:de`` takes an argument.

    Raises:
        ConfigError: there is no such step.
    """
    if name.startswith("language:"):
        return language(name.partition(":")[2])
    if name not in STEPS:
        raise ConfigError(f"data.cleaning has no step '{name}'.", f"Steps: {', '.join(STEPS)}, language:CODE.")
    return STEPS[name]


class Cleaner:
    """Applies steps in order, up to the first that drops the document.

    Attributes:
        taken: name of a step → processor seconds that it took so far, bytes that it was given.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.steps = {name: find_step(name) for name in names}
        self.taken = {name: [0.0, 0] for name in self.steps}
        self._opened: set[str] = set()

    def apply(self, text: str, size: int = 0) -> Outcome:
        """(text, ""): kept; (text, reason): dropped. ``size`` of the text in bytes is counted."""
        began = time.thread_time() if self.steps else 0.0
        for name, step in self.steps.items():
            text, reason = step(text)
            ended = time.thread_time()
            if name in self._opened:
                self.taken[name][0] += ended - began
                self.taken[name][1] += size
            self._opened.add(name)  # the first text may take as long as the import of a library
            began = ended
            if reason:
                return text, reason
        return (text, "") if text.strip() else (text, "emptied_by_cleaning")

    @property
    def by_lines(self) -> bool:
        """Whether a text may go through in pieces that end with lines."""
        return BY_LINES.issuperset(self.steps)

    def dropping_step(self, text: str) -> str:
        """The name of the step that drops ``text``, or leaves nothing of it; empty where it is kept."""
        for name, step in self.steps.items():
            text, reason = step(text)
            if reason or not text.strip():
                return name
        return ""
