"""Cuts the ends of documents off for validation, where a line or a word begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.encoded import EncodedDocuments, Ints
from pretrain_cli.data.encoding.vocabulary_bytes import byte_names, is_byte_level, token_bytes
from pretrain_cli.tokenizer.load import TokenizerInfo

IDS_AT_ONCE = 1 << 16
IDS_SEARCHED = 4096
LINE, WORD, CHARACTER, INSIDE = 3, 2, 1, 0


@dataclass(frozen=True)
class Cut:
    """Where a document is cut: tokens that stay for training, and bytes of the end that is held out."""

    tokens: int
    end_bytes: int


def cut_tails(tails: dict[int, int], encoded: EncodedDocuments, info: TokenizerInfo) -> dict[int, Cut]:
    """Place of a document → where it is cut, so that about the last ``tails`` bytes of it are held out.

    A document that has no place to be cut isn't in it.
    """
    if not tails:  # reading the vocabulary takes a moment
        return {}
    sizes, starts, cuts = token_bytes(info.file), _starts(info), dict[int, Cut]()
    for shard in encoded.shards():
        for place in sorted(place for place in tails if shard.span.start <= place < shard.span.stop):
            at = place - shard.first
            dtype = np.dtype(encoded.dtype)
            ids = _StoredIds(
                encoded.ids_file(shard.shard), dtype, int(shard.offsets[at]), int(shard.table["tokens"][at])
            )
            cut = _cut_place(ids, sizes, float(tails[place]), starts)
            if 0 < cut < len(ids):
                blocks = (ids[start : start + IDS_AT_ONCE] for start in range(cut, len(ids), IDS_AT_ONCE))
                cuts[place] = Cut(cut, sum(int(sizes[block].sum()) for block in blocks))
    return cuts


@dataclass(frozen=True)
class _StoredIds:
    """``many`` ids of a shard from its ``first`` on, read by slices: a mapping would hold every page it touches."""

    file: Path
    dtype: np.dtype[np.unsignedinteger]
    first: int
    many: int

    def __len__(self) -> int:
        return self.many

    def __getitem__(self, wanted: slice) -> npt.NDArray[np.unsignedinteger]:
        start, stop, _ = wanted.indices(self.many)
        offset = (self.first + start) * self.dtype.itemsize
        return np.fromfile(self.file, self.dtype, max(0, stop - start), offset=offset)


def _cut_place(ids: _StoredIds, sizes: Ints, budget: float, starts: npt.NDArray[np.int8]) -> int:
    """Of the last ``budget`` bytes, the first token that a line starts with, else a word, else a character."""
    left, cut = budget, len(ids)
    while cut > 0:  # in blocks from the end, so that a long document isn't held
        block = sizes[ids[max(0, cut - IDS_AT_ONCE) : cut]][::-1].cumsum()
        if block[-1] >= left:
            cut -= int(np.searchsorted(block, left))
            break
        left -= int(block[-1])
        cut -= len(block)
    kinds = starts[ids[cut : cut + IDS_SEARCHED]]
    # Not so far on that little is held out: a line or a word may start within a tenth of what is.
    reach = max(8, (len(ids) - cut) // 10)
    for kind, within in ((LINE, reach), (WORD, reach), (CHARACTER, len(kinds))):
        found = np.flatnonzero(kinds[:within] >= kind)
        if len(found):
            return cut + int(found[0])
    return cut


def _starts(info: TokenizerInfo) -> npt.NDArray[np.int8]:
    """By id, what begins with the token: a LINE, a WORD, a CHARACTER, or nothing: its first byte is INSIDE one."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(info.file)).get_vocab(with_added_tokens=True)
    inside = tuple(f"<0x{byte:02X}>" for byte in range(0x80, 0xC0))
    if is_byte_level(info.file):
        names = byte_names()
        inside = tuple(names[byte] for byte in range(0x80, 0xC0))
    kinds = np.full(max(vocabulary.values()) + 1, CHARACTER, np.int8)
    for token, index in vocabulary.items():
        if token.startswith(("Ċ", "<0x0A>", "\n")):
            kinds[index] = LINE
        elif token.startswith(("Ġ", "▁")):
            kinds[index] = WORD
        elif token.startswith(inside):
            kinds[index] = INSIDE
    return kinds
