"""Bundles what a prepare has made once the rows are written, for the manifest."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_cli.data.accounting.figures import Figures
from pretrain_cli.data.choosing.selection import Selection
from pretrain_cli.data.encoding.shards import ShardCounts
from pretrain_cli.data.rows.assembly import SplitCounts
from pretrain_cli.data.rows.layout import RowSettings


@dataclass(frozen=True)
class PackedText:
    """The text on its way to rows.

    Attributes:
        counts: of each shard.
        figures: what the rows hold by source and by file.
        selection: which of them went where.
        rows: what shaped the rows.
        train, validation: what went into the rows.
        rearranged: tokens that moving middles has added.
    """

    counts: list[ShardCounts]
    figures: Figures
    selection: Selection
    rows: RowSettings
    train: SplitCounts
    validation: SplitCounts
    rearranged: int = 0

    @property
    def tokens(self) -> int:
        """In all rows."""
        return self.train.tokens + self.validation.tokens

    @property
    def places(self) -> int:
        """For tokens in all rows, padding included."""
        return (self.train.rows + self.validation.rows) * self.rows.sequence_length
