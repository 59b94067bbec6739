"""Encodes documents for scoring: ids, and the byte of the document that each id begins at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pretrain_cli.data.encoding.encoder import PIECE_CHARACTERS, Encoder
from pretrain_cli.errors import panics_told
from pretrain_cli.evaluation.models import OpenModel
from pretrain_cli.evaluation.sums import DocumentSums, TextSums
from pretrain_cli.evaluation.text_documents import TextDocument
from pretrain_cli.evaluation.windows import Columns


def encode(model: OpenModel, document: TextDocument, sums: TextSums) -> tuple[DocumentSums, Iterator[Columns]]:
    """The document's sums, and its ids after a BOS with the byte that each begins at, int64[2, n], piece by piece.

    A long document is encoded in pieces where that gives the ids of the whole.
    """
    opened = sums.open_document(document.name, document.source)

    def pieces() -> Iterator[Columns]:
        yield np.asarray([[model.first_id], [0]], dtype=np.int64)
        for text in join_parts(document.parts, model.encoder):
            first_byte = opened.n_bytes
            opened.grow(text)
            # A space that the cut leaves out comes back from the tokenizer, but belongs to the document's bytes.
            skipped = model.encoder.skips if first_byte else 0
            with panics_told():
                encoding = model.tokenizer.encode(text[skipped:], add_special_tokens=False)
            sums.unencoded_bytes += _unencoded(model, text, encoding.ids)
            sums.back.add(text, encoding.ids)
            starts = np.asarray([start for start, _ in encoding.offsets], dtype=np.int64) + skipped
            yield np.stack([np.asarray(encoding.ids, dtype=np.int64), first_byte + _byte_offsets(text)[starts]])

    return opened, pieces()


def join_parts(parts: Iterable[str], encoder: Encoder) -> Iterator[str]:
    """A document's text in pieces that can be encoded one by one; from the second on with the space at the cut."""
    held, wanted = "", 2 * PIECE_CHARACTERS
    for part in parts:
        held += part
        if len(held) < wanted:
            continue
        *whole, _ = encoder.pieces(held)
        at = 0
        for piece in whole:
            end = at + len(piece) + (encoder.skips if at else 0)
            yield held[at:end]
            at = end
        held = held[at:]
        # Text without a place to cut: look again when there is twice as much of it.
        wanted = max(2 * PIECE_CHARACTERS, 2 * len(held))
    if held:
        yield held


def _unencoded(model: OpenModel, text: str, ids: list[int]) -> int:
    """UTF-8 bytes of ``text`` that the vocabulary has no token for."""
    if model.token_bytes is None:
        return 0
    return len(text.encode("utf-8")) - int(model.token_bytes[np.asarray(ids, np.int64)].sum())


def _byte_offsets(text: str) -> NDArray[np.int64]:
    """UTF-8 bytes before each character, int64[n_characters + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])
