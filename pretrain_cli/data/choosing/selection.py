"""From the table of all encoded documents to the two splits: dedup, weights, held-out text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.choosing.split import Ints, Part, choose_split, copies, first_seen, hold_out
from pretrain_cli.data.cleaning.near_duplicates import near_duplicates
from pretrain_cli.data.encoding.encoder import byte_names, token_bytes
from pretrain_cli.data.encoding.tasks import shard_name
from pretrain_cli.tokenizer.load import TokenizerInfo

BLOCK = 1 << 16
"""Ids looked at at once."""


@dataclass
class Selection:
    """The splits, and what was left out after encoding: documents, bytes and tokens by reason."""

    train: Part
    validation: Part
    dropped: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    repeated_tokens: int = 0
    repeated_documents: int = 0
    validation_bytes: int = 0
    split: str = "tail"


def select(
    table: npt.NDArray[np.void],
    config: DataConfig,
    weights: list[float],
    info: TokenizerInfo,
    work: Path,
    shard_sizes: list[int],
) -> Selection:
    """Choose what goes where; ``table`` has one entry a document, in reading order."""
    hashes = np.ascontiguousarray(table["hash"])
    keep = np.ones(len(table), bool)
    dropped: dict[str, npt.NDArray[np.bool_]] = {}
    if config.exact_dedup:
        dropped["duplicate"] = ~first_seen(hashes)
        keep &= ~dropped["duplicate"]
    if config.near_dedup:
        files = (work / f"{shard_name(index)}.signatures.npy" for index in range(len(shard_sizes)))
        dropped["near_duplicate"] = near_duplicates(np.concatenate([np.load(file) for file in files]), keep)
        keep &= ~dropped["near_duplicate"]
    times = copies(table["source"].astype(np.int64), hashes, weights, config.seed)
    if (keep & (times == 0)).any():
        dropped["weight"] = keep & (times == 0)
        keep &= times > 0
    kept = np.flatnonzero(keep)
    way = choose_split(config.split, len(kept))
    held, cut = hold_out(table["bytes"][kept], hashes[kept], config.validation_fraction, way, config.seed)
    train = _part(table, kept[~held], np.flatnonzero(~held))
    validation = _part(table, kept[held], np.flatnonzero(held))
    selection = Selection(train, validation, dropped, split=way)
    selection.validation_bytes = int(table["bytes"][kept[held]].sum())
    if cut:
        _cut_tail(selection, table, config.validation_fraction, info, work, shard_sizes)
    _repeat(selection, times, len(kept))
    return selection


def _part(table: npt.NDArray[np.void], rows: Ints, documents: Ints) -> Part:
    return Part(documents, rows, np.broadcast_to(np.int64(0), len(rows)), table["tokens"][rows], table["source"][rows])


def _repeat(selection: Selection, times: Ints, kept: int) -> None:
    """Training documents of a source with weight 2 come twice; a copy is a document of its own, with a new index."""
    part = selection.train
    extra = np.repeat(np.arange(len(part.rows)), np.maximum(times[part.rows] - 1, 0))
    if not len(extra):
        return
    selection.repeated_documents = len(extra)
    selection.repeated_tokens = int(part.tokens[extra].sum())
    columns = {name: np.concatenate([getattr(part, name), getattr(part, name)[extra]]) for name in vars(part)}
    columns["documents"][len(part.rows) :] = kept + np.arange(len(extra))
    selection.train = Part(**columns)


def _cut_tail(
    selection: Selection,
    table: npt.NDArray[np.void],
    fraction: float,
    info: TokenizerInfo,
    work: Path,
    shard_sizes: list[int],
) -> None:
    """Hold out the tail of the last document: about ``fraction`` of all bytes, cut where a line or a word begins."""
    part = selection.train
    last = int(part.rows[-1])
    shard = int(np.searchsorted(np.cumsum(shard_sizes), last, side="right"))
    first = sum(shard_sizes[:shard])
    start = int(table["tokens"][first:last].sum())
    many = int(table["tokens"][last])
    dtype = "uint16" if info.vocab_size <= 1 << 16 else "uint32"
    ids = _Stored(work / f"{shard_name(shard)}.ids", np.dtype(dtype), start, many)
    sizes = token_bytes(info.file)
    budget = fraction * int(table["bytes"][part.rows].sum())
    cut = _border(ids, sizes, budget, _starts(info))
    if not 0 < cut < many:
        return
    held = sum(int(sizes[ids[at : at + BLOCK]].sum()) for at in range(cut, many, BLOCK))
    one = slice(len(part.rows) - 1, None)
    selection.validation = Part(
        part.documents[one].copy(),
        part.rows[one].copy(),
        np.array([cut]),
        np.array([many - cut]),
        part.sources[one].copy(),
    )
    part.tokens[-1] = cut
    selection.validation_bytes = held


@dataclass(frozen=True)
class _Stored:
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


def _border(ids: _Stored, sizes: Ints, budget: float, starts: npt.NDArray[np.int8]) -> int:
    """The first token after the last ``budget`` bytes begin with which a line starts, else a word, else a character."""
    left, cut = budget, len(ids)
    while cut > 0:  # in blocks from the end, so that a long document isn't held
        block = sizes[ids[max(0, cut - BLOCK) : cut]][::-1].cumsum()
        if block[-1] >= left:
            cut -= int(np.searchsorted(block, left))
            break
        left -= int(block[-1])
        cut -= len(block)
    kinds = starts[ids[cut : cut + 4096]]
    # Not so far that little is held out: a line border within a tenth of what is, a word border within a few.
    reach = max(8, (len(ids) - cut) // 10)
    for kind, within in ((LINE, reach), (WORD, reach), (CHARACTER, len(kinds))):
        found = np.flatnonzero(kinds[:within] >= kind)
        if len(found):
            return cut + int(found[0])
    return cut


LINE, WORD, CHARACTER, INSIDE = 3, 2, 1, 0


def _starts(info: TokenizerInfo) -> npt.NDArray[np.int8]:
    """By id, what begins with the token: a LINE, a WORD, a CHARACTER, or nothing: its first byte is INSIDE one."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(info.file)).get_vocab(with_added_tokens=True)
    inside = tuple(f"<0x{byte:02X}>" for byte in range(0x80, 0xC0))
    if '"ByteLevel"' in info.file.read_text(encoding="utf-8"):
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
