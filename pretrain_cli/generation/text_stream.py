"""Turns ids into text as they come, and never shows half a character or the beginning of a stop text.

`tokenizers.decoders.DecodeStream` does the first half, but withholds bytes that are no character until a valid
character follows, all of them at the end; a model that has learned little writes many of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BROKEN = "�"
LONGEST_CHARACTER = 4
"""A character has at most four bytes: after as many broken tokens the bytes are wrong, not unfinished."""


class TextStream:
    """The text of ids that come one by one; what ``push`` and ``finish`` return, joined, is ``text``."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        # The last ids of the prompt decide whether the first new one begins with a space.
        self.ids = list(prompt[-5:])
        self.prefix, self.read = 0, len(self.ids)
        self.stop = [text for text in stop if text]
        self.text = ""
        self.waiting = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character or a stop text may be unfinished."""
        self.ids.append(token)
        known = self._decode(self.ids[self.prefix : self.read])
        whole = self._decode(self.ids[self.prefix :])
        if whole.endswith(BROKEN) and len(self.ids) - self.read < LONGEST_CHARACTER:
            return ""
        if len(whole) <= len(known):
            return ""
        self.prefix, self.read = self.read, len(self.ids)
        return self._release(whole[len(known) :])

    def finish(self) -> str:
        """The text that was held back; half a character is left out."""
        piece, self.waiting = ("" if self.stopped else self.waiting), ""
        self.text += piece
        return piece

    def _release(self, piece: str) -> str:
        self.waiting += piece
        places = [place for place in (self.waiting.find(text) for text in self.stop) if place >= 0]
        if places:
            self.stopped = True
            shown, self.waiting = self.waiting[: min(places)], ""
        else:
            held = max((_overlap(self.waiting, text) for text in self.stop), default=0)
            cut = len(self.waiting) - held
            shown, self.waiting = self.waiting[:cut], self.waiting[cut:]
        self.text += shown
        return shown

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
