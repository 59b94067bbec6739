"""Cuts the ends of documents off for validation, where a line or a word begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.encoding.encoded import EncodedDocuments, Ints
from pretrain_cli.data.encoding.vocabulary_bytes import byte_names, is_byte_level, token_bytes
from pretrain_cli.tokenizer.load import TokenizerInfo

IDS_AT_ONCE = 1 << 16
IDS_SEARCHED = 4096
LINE, WORD, CHARACTER, INSIDE = 3, 2, 1, 0


def cut_tails(
    train: DocumentRanges, tails: Ints, encoded: EncodedDocuments, info: TokenizerInfo
) -> tuple[DocumentRanges, DocumentRanges, Ints]:
    """(train, validation, bytes of each end): of each entry of ``train`` the last ``tails`` bytes, about.

    An entry that has no place to be cut stays whole.
    """
    if not tails.any():  # reading the vocabulary takes a moment
        return train, DocumentRanges(*(column[:0] for column in vars(train).values())), tails[:0]
    sizes, starts = token_bytes(info.file), _starts(info)
    tokens, first, ends = train.tokens.copy(), np.zeros(len(train.tokens), np.int64), []
    for entry in np.flatnonzero(tails):
        ids = _stored_ids(encoded, int(train.entries[entry]))
        cut = _cut_place(ids, sizes, float(tails[entry]), starts)
        if 0 < cut < len(ids):
            tokens[entry], first[entry] = cut, cut
            ends.append(sum(int(sizes[ids[at : at + IDS_AT_ONCE]].sum()) for at in range(cut, len(ids), IDS_AT_ONCE)))
    held = np.flatnonzero(first)
    validation = DocumentRanges(
        train.documents[held], train.entries[held], first[held], train.tokens[held] - first[held], train.sources[held]
    )
    return replace(train, tokens=tokens), validation, np.array(ends, np.int64)


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


def _stored_ids(encoded: EncodedDocuments, entry: int) -> _StoredIds:
    """The ids of one document."""
    shard = int(np.searchsorted(np.cumsum(encoded.shard_sizes), entry, side="right"))
    tokens = encoded.table["tokens"]
    before = int(tokens[sum(encoded.shard_sizes[:shard]) : entry].sum())
    return _StoredIds(encoded.ids_file(shard), np.dtype(encoded.dtype), before, int(tokens[entry]))


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
