"""Reads a dataset of the Hugging Face Hub, streamed."""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_cli.data.reading.documents import Record
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import choose_column, text_of
from pretrain_cli.errors import DataError


def read_hub(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """``hf://datasets/owner/name[:split]``, an address without a file name."""
    from datasets import load_dataset

    name, _, split = span.file.path.removeprefix("hf://datasets/").partition(":")
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the Hub's errors and the network's: all mean the same to the user
        raise DataError(
            f"{span.file.path} can't be opened: {error!r}.", "Check its name, its split and the network."
        ) from error
    column = settings.column
    for number, row in enumerate(rows, 1):
        column = choose_column(row, span.file.path) if column == "auto" else column
        yield text_of(row, column, span.file.path, number, 0, 0)
