"""Checks that a stranger's tokenizer makes ids of its own vocabulary, and not much more text than it is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from pretrain_cli.formatting import exact

MOST_GROWTH = 1_000
"""Characters that normalizers or decoders may make of one, those of Unicode's own forms (18 at most) not counted."""
MOST_ADDED = 1_000
"""Ids that a post-processor may put around a text, or times that it may repeat one."""
SPARSE_IDS = 1_000_000
"""Ids without an entry that a vocabulary may have, beyond as many as it has entries."""


def check_bounds(tokenizer: Tokenizer) -> None:
    """Look at a tokenizer's parts, before it works on a text.

    Raises:
        ValueError: its post-processor adds an id that the vocabulary doesn't have, its ids are far more than its
            entries, or its chain of replacements makes more than `MOST_GROWTH` characters of one.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    size = max(ids, default=-1) + 1
    if not size:
        raise ValueError("its vocabulary is empty")
    if size > 2 * len(ids) + SPARSE_IDS:
        raise ValueError(f"it has the id {exact(size - 1)}, but only {exact(len(ids))} entries")
    for added in _added_ids(_parts(tokenizer.post_processor)):
        if added >= size:
            raise ValueError(f"its post-processor adds the id {exact(added)}, but the vocabulary has {exact(size)} ids")
    if (most := _most_added(_parts(tokenizer.post_processor))) > MOST_ADDED:
        raise ValueError(f"its post-processor adds {exact(most)} ids to a text")
    for what, part in (("normalizer", tokenizer.normalizer), ("decoder", tokenizer.decoder)):
        growth = 1.0
        for step in _steps(_parts(part)):
            growth *= _growth(step)
        if growth > MOST_GROWTH:
            raise ValueError(f"its {what} makes up to {growth:.3g} characters of one")


def check_added(tokenizer: Tokenizer, spec: dict[str, Any]) -> None:
    """Check that no added token has an id far beyond the vocabulary: other readers ask for memory up to there.

    Raises:
        ValueError: one has.
    """
    most = tokenizer.get_vocab_size() + SPARSE_IDS
    if far := next((token for token in spec.get("added_tokens", ()) if token["id"] >= most), None):
        raise ValueError(f"its added token {far['content']!r:.60} has the id {exact(far['id'])}")


def misnumbered(tokenizer: Tokenizer, spec: dict[str, Any]) -> str:
    """What is wrong with the added tokens' ids, or nothing: `tokenizers` gives them others than their file says where
    those don't follow the vocabulary, and whoever else reads the file takes those in it."""
    for token in spec.get("added_tokens", ()):
        if (own := tokenizer.token_to_id(token["content"])) not in (None, token["id"]):
            return f"{token['content']!r:.60} has the id {exact(token['id'])} in its file, and gets {exact(own)}"
    return ""


def _parts(part: Any) -> Any:
    """What tokenizer.json says of ``part``; nothing where there is none."""
    return json.loads(part.__getstate__()) if part is not None else {}


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The normalizers or decoders in a part, those of a sequence one by one."""
    inner = part.get("normalizers") or part.get("decoders")
    if part.get("type") == "Sequence" and inner:
        for step in inner:
            yield from _steps(step)
    else:
        yield part


def _growth(step: dict[str, Any]) -> float:
    if step.get("type") == "Prepend":
        return 1.0 + len(step.get("prepend") or "")
    if step.get("type") != "Replace":
        return 1.0
    written = len(step.get("content") or "")
    literal = (step.get("pattern") or {}).get("String")
    return max(1.0, written / max(1, len(literal or "")))


def _added_ids(part: Any) -> Iterator[int]:
    """The ids that a post-processor puts around a text."""
    if part.get("type") == "Sequence":
        for inner in part.get("processors", ()):
            yield from _added_ids(inner)
    for mark in ("sep", "cls"):
        if isinstance(part.get(mark), list):
            yield int(part[mark][1])
    for special in (part.get("special_tokens") or {}).values():
        yield from special["ids"]


def _most_added(part: Any) -> int:
    """At most how many ids a post-processor adds; a text that it repeats counts as one."""
    if part.get("type") == "Sequence":
        return sum(map(_most_added, part.get("processors", ())))
    sizes = {name: len(special["ids"]) for name, special in (part.get("special_tokens") or {}).items()}
    pieces = [piece for way in ("single", "pair") for piece in part.get(way) or ()]
    return sum(sizes.get((piece.get("SpecialToken") or {}).get("id"), 1) for piece in pieces)
