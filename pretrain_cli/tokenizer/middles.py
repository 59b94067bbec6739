"""Finds a tokenizer's control tokens for a middle, and puts the parts of a text around them (arXiv 2207.14255)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from pretrain_cli.errors import UsageError, panics_told

NAMES = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
"""Of a tokenizer trained here, and of Qwen, CodeGemma and Granite 4."""
FAMILIES = (
    NAMES,
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, StableCode, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)
ANCHORS = ("", "\n")
"""What a part is encoded after, so that a tokenizer that begins each text with a space adds none to it."""
PROBES = ("x", "value", "if")
SPACES = ("▁", "Ġ", " ")
"""What a token begins with that stands for a space and more."""


@dataclass(frozen=True)
class MiddleTokens:
    """The ids in front of the text before the middle, of the text after it, and of the middle itself.

    ``anchor``: see `ANCHORS`.
    """

    prefix: int
    suffix: int
    middle: int
    anchor: str = ""

    def arranged(
        self, before: Sequence[int], middle: Sequence[int], after: Sequence[int], suffix_first: bool
    ) -> list[int]:
        """The parts' ids as a model sees them: prefix, suffix, middle; or suffix, prefix, middle.

        With the suffix first, the middle follows the prefix directly: a model just continues it.
        """
        if suffix_first:
            return [self.prefix, self.suffix, *after, self.middle, *before, *middle]
        return [self.prefix, *before, self.suffix, *after, self.middle, *middle]


def find_middle_tokens(tokenizer: Tokenizer) -> MiddleTokens | None:
    """The control tokens of ``tokenizer``; None where it has none, or encodes parts of a text only as whole texts."""
    for names in FAMILIES:
        prefix, suffix, middle = map(tokenizer.token_to_id, names)
        if prefix is not None and suffix is not None and middle is not None:
            anchor = _anchor(tokenizer)
            return None if anchor is None else MiddleTokens(prefix, suffix, middle, anchor)
    return None


def _anchor(tokenizer: Tokenizer) -> str | None:
    with panics_told():
        for anchor in ANCHORS:
            before = tokenizer.encode(anchor, add_special_tokens=False).tokens
            parts = [tokenizer.encode(anchor + probe, add_special_tokens=False).tokens for probe in PROBES]
            if all(not "".join(part[len(before) :]).startswith(SPACES) for part in parts):
                return anchor
    return None


def encode_part(text: str, tokenizer: Tokenizer, tokens: MiddleTokens) -> list[int]:
    """The ids of ``text`` in the midst of a text: with no space of the tokenizer's own in front."""
    with panics_told():
        skipped = len(tokenizer.encode(tokens.anchor, add_special_tokens=False).ids)
        ids: list[int] = tokenizer.encode(tokens.anchor + text, add_special_tokens=False).ids
    return ids[skipped:]


def need_middle_tokens(tokenizer: Tokenizer, name: str) -> MiddleTokens:
    """The control tokens of the model ``name``.

    Raises:
        UsageError: it has none.
    """
    tokens = find_middle_tokens(tokenizer)
    if tokens is None:
        raise UsageError(
            f"The tokenizer of {name} has no control tokens for filling in a middle.",
            "Take a model for code that has (StarCoder, Qwen, DeepSeek, Code Llama), or train one from scratch with "
            "--set data.fim_rate=0.5",
        )
    return tokens
