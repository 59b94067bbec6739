"""Which documents are kept, and what is changed in them? Steps by name; none by default."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from pretrain_cli.errors import ConfigError, MissingDependencyError

Outcome = tuple[str, str]
"""(text, ""): kept, perhaps changed. (text, reason): dropped."""
Step = Callable[[str], Outcome]

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
IP = re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")
PHONE = re.compile(r"(?<![\w.])\+?\d[\d ()/-]{7,16}\d(?![\w.])")


def ftfy(text: str) -> Outcome:
    """Mend mojibake with `ftfy` (extra `documents`)."""
    try:
        import ftfy as library
    except ImportError as error:
        raise MissingDependencyError("The step 'ftfy' needs ftfy.", "pip install 'pretrain-cli[documents]'") from error
    return library.fix_text(text), ""


def nfc(text: str) -> Outcome:
    """Unicode normalisation form C."""
    return unicodedata.normalize("NFC", text), ""


def newlines(text: str) -> Outcome:
    """CRLF and CR become LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n"), ""


def control(text: str) -> Outcome:
    """Take out control characters other than tab and line ends."""
    return "".join(c for c in text if c in "\t\n\r" or unicodedata.category(c) != "Cc"), ""


def min_length(text: str) -> Outcome:
    """Drop documents under 200 characters."""
    return text, "too_short" if len(text) < 200 else ""


def gopher_quality(text: str) -> Outcome:
    """Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, table A1)."""
    words = text.split()
    if not 50 <= len(words) <= 100_000:
        return text, "gopher_word_count"
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        return text, "gopher_mean_word_length"
    if (text.count("#") + text.count("...") + text.count("…")) / len(words) > 0.1:
        return text, "gopher_symbols"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if sum(line.startswith(("•", "-", "*")) for line in lines) > 0.9 * len(lines):
        return text, "gopher_bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        return text, "gopher_ellipses"
    if sum(any(c.isalpha() for c in word) for word in words) < 0.8 * len(words):
        return text, "gopher_alphabetic"
    if len(STOP_WORDS & {word.lower().strip(".,;:!?") for word in words}) < 2:
        return text, "gopher_stop_words"
    return text, ""


def gopher_repetition(text: str) -> Outcome:
    """Gopher's repetition rules (arXiv 2112.11446, table A1): lines, paragraphs and the most frequent n-grams."""
    for name, parts, share in (("line", text.split("\n"), 0.3), ("paragraph", text.split("\n\n"), 0.3)):
        filled = [part.strip() for part in parts if part.strip()]
        counts = Counter(filled)
        if filled and (len(filled) - len(counts)) / len(filled) > share:
            return text, f"gopher_repeated_{name}s"
    words = text.split()
    for n, share in ((2, 0.2), (3, 0.18), (4, 0.16)):
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        if grams:
            gram, times = grams.most_common(1)[0]
            if times > 1 and times * sum(map(len, gram)) / max(1, len(text)) > share:
                return text, f"gopher_top_{n}_gram"
    return text, ""


def c4(text: str) -> Outcome:
    """C4's page rules (Raffel et al. 2020, arXiv 1910.10683): placeholder text, code pages, fewer than 5 sentences."""
    lower = text.lower()
    if "lorem ipsum" in lower:
        return text, "c4_lorem_ipsum"
    if "{" in text:
        return text, "c4_brace"
    if len(re.findall(r"[.!?][\"”')]?(?:\s|$)", text)) < 5:
        return text, "c4_few_sentences"
    return text, ""


def fineweb(text: str) -> Outcome:
    """FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557): punctuated, repeated and short lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    if sum(line.rstrip().endswith((".", "!", "?", '"', "”")) for line in lines) <= 0.12 * len(lines):
        return text, "fineweb_punctuation"
    characters = sum(map(len, lines))
    repeated = sum(len(line) * (times - 1) for line, times in Counter(lines).items())
    if repeated > 0.1 * max(1, characters):
        return text, "fineweb_repeated_lines"
    if sum(len(line) < 30 for line in lines) >= 0.67 * len(lines):
        return text, "fineweb_short_lines"
    return text, ""


def personal_data(text: str) -> Outcome:
    """Replace e-mail addresses, IPv4 addresses and phone numbers by <email>, <ip>, <phone>."""
    text = EMAIL.sub("<email>", text)
    return PHONE.sub("<phone>", IP.sub("<ip>", text)), ""


def language(code: str) -> Step:
    """Keep documents in one language (ISO 639-1), told by py3langid from the first 4 000 characters."""

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
        ConfigError: there is none.
    """
    if name.startswith("language:"):
        return language(name.partition(":")[2])
    if name not in STEPS:
        raise ConfigError(f"data.cleaning has no step '{name}'.", f"Steps: {', '.join(STEPS)}, language:CODE.")
    return STEPS[name]


class Cleaner:
    """Applies steps in order; stops at the first that drops."""

    def __init__(self, names: Sequence[str]) -> None:
        self.steps = [find_step(name) for name in names]

    def apply(self, text: str) -> Outcome:
        """(text, ""): kept; (text, reason): dropped."""
        for step in self.steps:
            text, reason = step(text)
            if reason:
                return text, reason
        return (text, "") if text.strip() else (text, "emptied_by_cleaning")
