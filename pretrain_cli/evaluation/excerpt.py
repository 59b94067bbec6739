"""Draws a part of a text by seed, so that a first verdict takes a minute."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from pretrain_cli.evaluation.text_documents import Text, TextDocument

LEAST_CHARACTERS = 64


def draw_excerpt(text: Text, n_bytes: int, seed: int) -> Text:
    """About ``n_bytes`` of ``text``: whole documents drawn by seed, and a passage of the last one drawn."""
    if text.n_bytes <= n_bytes:
        return text
    chosen = _chosen_passages(text, n_bytes, seed)

    def read() -> Iterator[TextDocument]:
        for index, document in enumerate(text.read()):
            if index in chosen:
                yield TextDocument(document.name, _passage(document.parts, *chosen[index]), document.source)
            document.read_to_end()

    return Text.measured(text.name, read)


def _chosen_passages(text: Text, n_bytes: int, seed: int) -> dict[int, tuple[int, int]]:
    """Index of a document → the characters of it that were drawn, (start, end)."""
    sizes = [document.opening(0)[1] for document in text.read()]
    generator = random.Random(seed)
    order = list(range(len(sizes)))
    generator.shuffle(order)
    share = n_bytes / text.n_bytes
    left = max(LEAST_CHARACTERS, round(share * sum(sizes)))
    chosen: dict[int, tuple[int, int]] = {}
    for index in order:
        if left <= 0:
            break
        length = min(sizes[index], left)
        start = generator.randrange(sizes[index] - length + 1)
        chosen[index] = (start, start + length)
        left -= length
    return chosen


def _passage(parts: Iterable[str], start: int, end: int) -> Iterator[str]:
    """Characters ``start`` to ``end`` of the joined parts."""
    at = 0
    for part in parts:
        inside = part[max(0, start - at) : max(0, end - at)]
        at += len(part)
        if inside:
            yield inside
        if at >= end:
            return
