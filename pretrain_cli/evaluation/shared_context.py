"""Chooses the context that all models of an evaluation get, since more context makes any model better."""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_cli.model.names import NamedModel
from pretrain_cli.run_record import read_run_config, read_run_record

UNTRAINED_CONTEXT = 1024
"""Tokens in a window for a model that wasn't trained here: the transformers guide's own figure."""


def shared_context(models: Sequence[NamedModel], context: int | str) -> int:
    """Tokens in a window, the same for all models: as asked, or the shortest rows that one of them was trained with."""
    if isinstance(context, int):
        return context
    return min((length for model in models if (length := _row_length(model))), default=UNTRAINED_CONTEXT)


def _row_length(named: NamedModel) -> int | None:
    """The row length that a run was trained with, from its record or config."""
    if named.run is None:
        return None
    record = read_run_record(named.run)
    if record is not None and record.sequence_length is not None:
        return record.sequence_length
    length = read_run_config(named.run).get("data", {}).get("sequence_length")
    return length if isinstance(length, int) else None
