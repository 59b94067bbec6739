"""Counts what is lost of a text when a tokenizer turns it into ids and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer

from pretrain_cli.formatting import count_of, exact, percent
from pretrain_cli.manifest_records import RoundTripRecord

FLATTERS = "Bits per byte look better than they are: what is lost costs nothing."


class RoundTrip:
    """Sums of what is lost, text by text.

    Args:
        tokenizer: that makes the ids and the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._unknown, self._unknown_id = _unknown(tokenizer)
        self.texts = self.changed = self.characters = self.lost = self.unknown = 0

    def add(self, text: str, ids: list[int]) -> None:
        """Count ``text``, whose ``ids`` these are.

        A character is lost where the text has it more often than what comes back, or less often: in a lower-cased text
        the capitals are. One space at the beginning may come or go: SentencePiece marks words by it.
        """
        self.texts += 1
        self.characters += len(text)
        unknown = ids.count(self._unknown_id) if self._unknown_id is not None else 0
        back = self._tokenizer.decode(ids, skip_special_tokens=False)
        if unknown and self._unknown not in text:
            back = back.replace(self._unknown, "")
        self.unknown += unknown
        if back.removeprefix(" ") == text.removeprefix(" "):
            return
        before, after = Counter(text), Counter(back)
        self.changed += 1
        self.lost += max((before - after).total(), (after - before).total())

    def record(self) -> RoundTripRecord:
        """The sums so far."""
        return RoundTripRecord(
            texts=self.texts,
            changed=self.changed,
            characters=self.characters,
            lost=self.lost,
            unknown=self.unknown,
        )


def round_trip(tokenizer: Tokenizer, texts: Iterable[str]) -> RoundTripRecord:
    """What is lost of ``texts``."""
    sums = RoundTrip(tokenizer)
    for text in texts:
        sums.add(text, tokenizer.encode(text, add_special_tokens=False).ids)
    return sums.record()


def told(found: RoundTripRecord) -> str:
    """What is lost, in words; empty where nothing is."""
    if not found.changed:
        return ""
    lost = f"{exact(found.lost)} of {count_of(found.characters, 'character')} ({percent(found.share, 1)})"
    if not found.lost:
        lost = "only the order of characters"
    where = f"in {exact(found.changed)} of {count_of(found.texts, 'text')}"
    unknown = f", {count_of(found.unknown, 'unknown token')} among them" if found.unknown else ""
    return f"{lost} {where}{unknown}"


def _unknown(tokenizer: Tokenizer) -> tuple[str, int | None]:
    """The token that stands for what the vocabulary doesn't have."""
    model = json.loads(tokenizer.to_str())["model"]
    token = model.get("unk_token")
    if token is None and isinstance(model.get("unk_id"), int):
        token = model["vocab"][model["unk_id"]][0]
    return (token, tokenizer.token_to_id(token)) if isinstance(token, str) else ("", None)
