"""Decides how rows are laid out: their length, packing, type, and the tokens around each document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pretrain_cli.config.model import Config, DataConfig
from pretrain_cli.data.choosing.ranges import DocumentRanges
from pretrain_cli.data.encoding.encoded import Ints
from pretrain_cli.data.rows.packing import PACKINGS, group_documents, group_tokens
from pretrain_cli.formatting import exact, percent
from pretrain_cli.tokenizer.load import TokenizerInfo

SCRATCH_LENGTH, BASE_LENGTH = 256, 512
LEAST_FILL = 0.97
"""Share of the places in rows that should hold text."""
LEAST_ROWS = 100
"""Fewer rows are trained on in seconds, however full they are, and their last one weighs too much."""
LONGER, LONGER_COSTS = 2, 0.05
"""Times the usual length that is tried too, and what keeping documents apart in such rows takes on a CPU."""
CUT_BELOW = 0.85
"""Less full than that, rows teach more if documents are cut (benchmarks/fill.py)."""


@dataclass(frozen=True)
class RowSettings:
    """What shapes rows, besides the ids.

    Attributes:
        sequence_length: tokens in a row.
        packing: a name in ``packing.PACKINGS``.
        dtype: of the stored ids.
        bos: the id before each document, or None.
        eos: the id after each document, or None.
        pad: the id in places without a token.
        reason: why rows are packed so, where it follows from the documents' lengths.
    """

    sequence_length: int
    packing: str
    dtype: str
    bos: int | None
    eos: int | None
    pad: int
    reason: str = ""

    @property
    def border_tokens(self) -> int:
        """Tokens around the text of each document: BOS, EOS, both or none."""
        return (self.bos is not None) + (self.eos is not None)

    def marks(self, ranges: DocumentRanges) -> Ints:
        """[n]: tokens around each range: BOS, EOS, both or none."""
        bos, eos = self.bos is not None, self.eos is not None
        return (ranges.opens & bos).astype(np.int64) + (ranges.closes & eos)


def choose_rows(
    config: Config, info: TokenizerInfo, warn: Callable[[str], None], lengths: Ints | None = None
) -> RowSettings:
    """The settings with every ``auto`` resolved.

    Args:
        config: what is asked for.
        info: of the tokenizer.
        warn: is told what the tokenizer doesn't have, and what padding costs.
        lengths: tokens of a sample of the documents, without BOS and EOS; None: they aren't known yet.
    """
    data = config.data
    add_bos = info.adds_bos if data.add_bos == "auto" else data.add_bos
    bos, eos = info.bos_id if add_bos else None, info.eos_id if data.add_eos else None
    if data.add_bos is True and bos is None:
        warn("The tokenizer has no BOS: documents begin without one.")
    if data.add_eos and eos is None:
        warn("The tokenizer has no EOS: documents end without one.")
    pad = next(index for index in (info.pad_id, info.eos_id, 0) if index is not None)
    sizes = (np.empty(0, np.int64) if lengths is None else lengths) + (bos is not None) + (eos is not None)
    length, packing, reason = _fitting(data, usual_length(config.model.base), info.max_length, sizes, warn)
    return RowSettings(length, packing, info.id_dtype, bos, eos, pad, reason)


def _fitting(
    data: DataConfig, usual: int, most: int | None, sizes: Ints, warn: Callable[[str], None]
) -> tuple[int, str, str]:
    """(row length, packing, reason): the first choice that is full enough, documents whole before cut ones."""
    free = data.sequence_length == "auto"
    first = min(usual, most or usual) if data.sequence_length == "auto" else data.sequence_length
    packing = choose_packing(data)
    if packing == "concat" or int(sizes.sum()) < LEAST_ROWS * first:
        return first, packing, ""
    usual_fill = fill_of(packing, first, sizes)
    if usual_fill >= LEAST_FILL:
        return first, packing, ""
    because = f"{packing} in rows of {exact(first)} tokens would be {percent(usual_fill, 1)} full"
    length = LONGER * first
    fuller = max(LEAST_FILL, usual_fill + LONGER_COSTS)
    if free and length <= (most or length) and fill_of(packing, length, sizes) >= fuller:
        return length, packing, f"rows of {exact(length)} tokens: {because}"
    if data.packing == "auto" and usual_fill < CUT_BELOW:
        return first, "concat", f"documents are cut where a row ends: {because}"
    costs = f"{percent(1 - usual_fill, 1)} of training's time goes to padding"
    if usual_fill >= CUT_BELOW:
        return first, packing, f"documents are whole: {costs}, and cutting them would cost more"
    warn(f"{costs[0].upper()}{costs[1:]}, which is more than cutting documents costs: --packing concat leaves none.")
    return first, packing, costs


def fill_of(packing: str, length: int, sizes: Ints) -> float:
    """Share of the places that hold text, of documents of ``sizes`` tokens; the emptiest row doesn't count."""
    packer, rooms = PACKINGS[packing](length), []
    plans = [packer.add(group) for group in group_documents([sizes], group_tokens(length), length)]
    for plan in (*plans, packer.finish()):
        if len(plan.counts):
            rooms.append(length - np.add.reduceat(plan.lengths, np.cumsum(plan.counts) - plan.counts))
    left = np.concatenate(rooms) if rooms else np.empty(0, np.int64)
    rows = len(left) - 1
    return 1 - float(left.sum() - left.max(initial=0)) / (rows * length) if rows > 0 else 1.0


def usual_length(base: str) -> int:
    """Tokens in a row where the config doesn't say."""
    return BASE_LENGTH if base else SCRATCH_LENGTH


def choose_packing(data: DataConfig) -> str:
    """How documents become rows where their lengths don't matter."""
    return "best-fit" if data.packing == "auto" else data.packing
