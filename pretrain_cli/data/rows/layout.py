"""Decides how rows are laid out: their length, packing, type, and the tokens around each document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pretrain_cli.config.model import Config, DataConfig
from pretrain_cli.tokenizer.load import TokenizerInfo

SCRATCH_LENGTH, BASE_LENGTH = 256, 512


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
    """

    sequence_length: int
    packing: str
    dtype: str
    bos: int | None
    eos: int | None
    pad: int

    @property
    def border_tokens(self) -> int:
        """Tokens around the text of each document: BOS, EOS, both or none."""
        return (self.bos is not None) + (self.eos is not None)


def choose_rows(config: Config, info: TokenizerInfo, warn: Callable[[str], None]) -> RowSettings:
    """The settings with every ``auto`` resolved; ``warn`` is told what the tokenizer doesn't have."""
    data = config.data
    usual = usual_length(config.model.base)
    length = min(usual, info.max_length or usual) if data.sequence_length == "auto" else data.sequence_length
    add_bos = info.adds_bos if data.add_bos == "auto" else data.add_bos
    bos, eos = info.bos_id if add_bos else None, info.eos_id if data.add_eos else None
    if data.add_bos is True and bos is None:
        warn("The tokenizer has no BOS: documents begin without one.")
    if data.add_eos and eos is None:
        warn("The tokenizer has no EOS: documents end without one.")
    pad = next(index for index in (info.pad_id, info.eos_id, 0) if index is not None)
    return RowSettings(length, choose_packing(data), info.id_dtype, bos, eos, pad)


def usual_length(base: str) -> int:
    """Tokens in a row where the config doesn't say."""
    return BASE_LENGTH if base else SCRATCH_LENGTH


def choose_packing(data: DataConfig) -> str:
    return "best-fit" if data.packing == "auto" else data.packing
