"""Bounds the length of the words that a tokenizer merges, and finds the texts that hold a longer one."""

from __future__ import annotations

import re
from typing import Any

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is split into words before merging: as Qwen2 does.

Digits one by one keep numbers from filling a small vocabulary. Digits() before ByteLevel() would do nearly the same,
but fastokens has a fast way for this pattern only: 200 MB/s against 13 on one core.
"""
LONGEST_WORD = 256
"""Characters of the longest word that a tokenizer trained here merges at once; a longer one is split.

Training takes time that grows with the square of a word's length. On 10.8 MB of presidents' addresses nothing is split.
"""
_SPLIT_LONG = re.compile(r"\[\\s\\S\]\{(\d+)\}")
_EDGE = re.compile(r"\d|[^\W\d_](?=[\W\d_])")
"""A digit, or a letter that no letter follows: with ``SPLIT`` a word ends there, whatever comes before."""


def split_long(limit: int) -> str:
    """The pattern that splits a word into pieces of ``limit`` characters, for a tokenizer.json.

    Not ``{1,limit}``, which would match short words too: `tokenizers` would take half as long again.
    """
    return rf"[\s\S]{{{limit}}}"


def longest_word(spec: dict[str, Any]) -> int:
    """Characters of the longest word that the tokenizer in ``spec`` merges at once; 0 where it says none.

    Only the steps of ``train_tokenizer`` are known: in others a word may end elsewhere.
    """
    steps = (spec.get("pre_tokenizer") or {}).get("pretokenizers", [])
    if [step.get("type") for step in steps] != ["Split", "Split", "ByteLevel"] or spec.get("normalizer"):
        return 0
    first, second = (str(step["pattern"].get("Regex")) for step in steps[:2])
    found = _SPLIT_LONG.fullmatch(second)
    return int(found[1]) if first == SPLIT and found else 0


def without_limit(spec: dict[str, Any]) -> dict[str, Any]:
    """``spec`` without its limit, for texts that hold no longer word."""
    steps = spec["pre_tokenizer"]["pretokenizers"]
    return {**spec, "pre_tokenizer": {**spec["pre_tokenizer"], "pretokenizers": [steps[0], steps[2]]}}


def may_hold_long_word(text: str, limit: int) -> bool:
    """Whether a word of ``text`` may be longer than ``limit`` characters. Linear; about 1 GB/s on English."""
    at, last = 0, len(text) - limit
    while at < last:
        # A space between two characters that aren't: a word ends before it.
        found = text.rfind(" ", at + 1, at + limit)
        if found > 0 and not (text[found - 1].isspace() or text[found + 1].isspace()):
            at = found
            continue
        edge = _EDGE.search(text, at + limit // 2, at + limit) or _EDGE.search(text, at, at + limit)
        if edge is None:
            return True
        at = edge.end()
    return False
