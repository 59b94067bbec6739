"""Reads a dataset of the Hugging Face Hub, streamed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import IO

from pretrain_cli.base import HUB_TIMEOUT_S
from pretrain_cli.data.reading.documents import Record
from pretrain_cli.data.reading.input_files import Span
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.data.reading.text_column import choose_column, text_of
from pretrain_cli.errors import DataError, first_line

SAMPLED_ROWS = 100
"""Each comes over the network."""


def read_hub(nothing: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
    """``hf://datasets/owner/name[:split]``, an address without a file name."""
    from datasets import load_dataset

    name, _, split = span.file.path.removeprefix("hf://datasets/").partition(":")
    _check_hub(name)
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
    except Exception as error:  # the Hub's errors and those of datasets: all mean the same to the user
        raise DataError(
            f"{span.file.path} can't be opened: {first_line(error)}.", "Check its name and its split."
        ) from error
    column, rows = settings.column, iter(rows)
    if column == "auto":
        sample = list(itertools.islice(rows, SAMPLED_ROWS))
        column = settings.take_column(choose_column(sample, span.file.path))
        rows = itertools.chain(sample, rows)
    for number, row in enumerate(rows, 1):
        yield text_of(row, column, span.file.path, number, 0, 0)


def _check_hub(name: str) -> None:
    """Ask the Hub once for data set ``name``: load_dataset tries five times, for 26 s, and prints each.

    Raises:
        DataError: there is no such data set, or the Hub doesn't answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT_S)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise DataError(
            f"There is no data set '{name}' on the Hub.", "Check its name. A private one needs: hf auth login"
        ) from error
    except HfHubHTTPError as error:
        raise DataError(
            f"The Hub refuses the data set '{name}': {first_line(error)}.", "Check the login: hf auth login"
        ) from error
    except Exception as error:  # each HTTP library under the Hub's client has its own connection errors
        raise DataError(
            f"The Hub doesn't answer, so the data set '{name}' can't be read ({first_line(error)}).",
            "Check the network, or download its files and name them.",
        ) from error
