"""Drops web pages that aren't worth learning from, by the published rules of Gopher, C4 and FineWeb."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, islice

Outcome = tuple[str, str]
"""(text, ""): kept, perhaps changed. (text, reason): dropped."""

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
SENTENCE_END = re.compile(r"[.!?][\"”')]?(?:\s|$)")
CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
TOP_GRAMS = ((2, 0.2), (3, 0.18), (4, 0.16))
REPEATED_GRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


def gopher_quality(text: str) -> Outcome:
    """Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, section A1.1)."""
    words = text.split()
    if not 50 <= len(words) <= 100_000:
        return text, "gopher_word_count"
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        return text, "gopher_mean_word_length"
    if max(text.count("#"), text.count("...") + text.count("…")) / len(words) > 0.1:
        return text, "gopher_symbols"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if sum(line.startswith(("•", "-", "*")) for line in lines) > 0.9 * len(lines):
        return text, "gopher_bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        return text, "gopher_ellipses"
    if not _mostly_alphabetic(words):
        return text, "gopher_alphabetic"
    if len(STOP_WORDS.intersection(words)) < 2 and len(STOP_WORDS & set(map(_plain, words))) < 2:
        return text, "gopher_stop_words"
    return text, ""


def _mostly_alphabetic(words: Sequence[str]) -> bool:
    """Whether 80% of the words hold a letter; those of letters alone, found first, are enough in most texts."""
    wanted = 0.8 * len(words)
    whole = sum(map(str.isalpha, words))
    return whole >= wanted or whole + sum(any(map(str.isalpha, w)) for w in words if not w.isalpha()) >= wanted


def _plain(word: str) -> str:
    return word.lower().strip(".,;:!?")


def gopher_repetition(text: str) -> Outcome:
    """Gopher's repetition rules (arXiv 2112.11446, table A1): lines, paragraphs, and n-grams of 2 to 10 words."""
    for name, separator in (("line", "\n"), ("paragraph", "\n\n")):
        passages = [passage.strip() for passage in text.split(separator) if passage.strip()]
        counts = Counter(passages)
        if len(passages) - len(counts) > 0.3 * len(passages):
            return text, f"gopher_repeated_{name}s"
        if sum(len(passage) * (times - 1) for passage, times in counts.items()) > 0.2 * len(text):
            return text, f"gopher_repeated_{name}_characters"
    words = text.split()
    longest, most = max(map(len, words), default=0), len(words)
    for n, share in TOP_GRAMS:
        if most * n * longest <= share * len(text):  # no n-gram comes more often than a part of it
            continue
        grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
        if grams:
            gram, most = grams.most_common(1)[0]
            if most > 1 and most * sum(map(len, gram)) > share * len(text):
                return text, f"gopher_top_{n}_gram"
    for n, share in REPEATED_GRAMS:
        if most < 2 or not _repeats(words, n):  # then no longer n-gram does
            break
        if _repeated_characters(words, n) > share * len(text):
            return text, f"gopher_repeated_{n}_grams"
    return text, ""


def _repeats(words: Sequence[str], n: int) -> bool:
    grams = set(zip(*(words[start:] for start in range(n)), strict=False))
    return len(grams) < len(words) - n + 1


def _repeated_characters(words: Sequence[str], n: int) -> int:
    """Characters in n-grams seen before in the text, each counted once where such n-grams overlap."""
    before = [0, *accumulate(map(len, words))]
    seen: set[tuple[str, ...]] = set()
    characters = end = 0
    for start, gram in enumerate(zip(*(words[first:] for first in range(n)), strict=False)):
        if gram in seen:
            characters += before[start + n] - before[max(start, end)]
            end = start + n
        else:
            seen.add(gram)
    return characters


def c4(text: str) -> Outcome:
    """C4's rules (Raffel et al. 2020, arXiv 1910.10683, section 2.2), without the list of bad words.

    Drops pages with placeholder text or braces; removes citation marks, and lines that end without punctuation, have
    fewer than three words, or mention JavaScript, cookies or terms of use; drops pages with fewer than five sentences
    left.
    """
    lower = text.lower()
    if "lorem ipsum" in lower:
        return text, "c4_lorem_ipsum"
    if "{" in text:
        return text, "c4_brace"
    lines = map(_without_citations if "[" in text else str.strip, text.splitlines())
    suspect = "javascript" in lower or any(policy in lower for policy in POLICIES)
    kept = "\n".join(line for line in lines if _is_c4_line(line, suspect))
    if sum(1 for _ in islice(SENTENCE_END.finditer(kept), 5)) < 5:
        return text, "c4_few_sentences"
    return kept, ""


def _without_citations(line: str) -> str:
    return CITATION.sub("", line).strip()


def _is_c4_line(line: str, suspect: bool) -> bool:
    if not line.endswith((".", "!", "?", '"', "”")) or line.endswith("...") or len(line.split()) < 3:
        return False
    if not suspect:
        return True
    lower = line.lower()
    return "javascript" not in lower and not any(policy in lower for policy in POLICIES)


def fineweb(text: str) -> Outcome:
    """FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557): punctuated, repeated and short lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    if sum(line.rstrip().endswith((".", "!", "?", '"', "”")) for line in lines) <= 0.12 * len(lines):
        return text, "fineweb_punctuation"
    repeated = sum(len(line) * (times - 1) for line, times in Counter(lines).items())
    if repeated > 0.1 * max(1, sum(map(len, lines))):
        return text, "fineweb_repeated_lines"
    if sum(len(line) < 30 for line in lines) >= 0.67 * len(lines):
        return text, "fineweb_short_lines"
    return text, ""
