"""Cleans documents by named steps, each of which keeps, changes or drops a text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from pretrain_cli.data.cleaning.web_quality import Outcome, c4, fineweb, gopher_quality, gopher_repetition
from pretrain_cli.errors import ConfigError, MissingDependencyError

Step = Callable[[str], Outcome]

EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
IP = re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")
PHONE = re.compile(r"(?<![\w.,])[+(]?\d[\d ()/.-]{6,20}\d(?!\w)")
OTHER_NUMBER = re.compile(r"\d{4}-\d\d-\d\d|97[89][- ]|\d{1,3}( \d{3})+$|\d{4} ?- ?\d{4}\b|\d+\.\d+$")
"""A date, an ISBN, thousands, a span of years, a decimal number."""


def ftfy(text: str) -> Outcome:
    """Fix mojibake with `ftfy` (extra `documents`)."""
    try:
        import ftfy as library
    except ImportError as error:
        raise MissingDependencyError("The step 'ftfy' needs ftfy.", "pip install 'pretrain-cli[documents]'") from error
    return library.fix_text(text), ""


def nfc(text: str) -> Outcome:
    """Unicode normalization form C."""
    return unicodedata.normalize("NFC", text), ""


def newlines(text: str) -> Outcome:
    """CRLF and CR become LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n"), ""


def control(text: str) -> Outcome:
    """Remove control characters other than tab and line ends."""
    return "".join(c for c in text if c in "\t\n\r" or unicodedata.category(c) != "Cc"), ""


def min_length(text: str) -> Outcome:
    """Drop documents under 200 characters."""
    return text, "too_short" if len(text) < 200 else ""


def personal_data(text: str) -> Outcome:
    """Replace email addresses, IPv4 addresses and phone numbers with <email>, <ip> and <phone>."""
    text = EMAIL.sub("<email>", text)
    return PHONE.sub(_phone, IP.sub("<ip>", text)), ""


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
                "The step 'language' needs py3langid.", "pip install 'pretrain-cli[documents]'"
            ) from error
        return text, "" if py3langid.classify(text[:4000])[0] == code else "other_language"

    return step


STEPS: dict[str, Step] = {
    step.__name__.replace("_", "-"): step
    for step in (
        ftfy, nfc, newlines, control, min_length, gopher_quality, gopher_repetition, c4, fineweb, personal_data,
    )
}  # fmt: skip


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
    """Applies steps in order, up to the first that drops the document."""

    def __init__(self, names: Sequence[str]) -> None:
        self.steps = {name: find_step(name) for name in names}

    def apply(self, text: str) -> Outcome:
        """(text, ""): kept; (text, reason): dropped."""
        for step in self.steps.values():
            text, reason = step(text)
            if reason:
                return text, reason
        return (text, "") if text.strip() else (text, "emptied_by_cleaning")

    def dropping_step(self, text: str) -> str:
        """The name of the step that drops ``text``, or leaves nothing of it; empty where it is kept."""
        for name, step in self.steps.items():
            text, reason = step(text)
            if reason or not text.strip():
                return name
        return ""
