"""Reads an input file's records, whatever its format, and says what is wrong with a file that can't be read."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.documents import Record
from pretrain_cli.data.reading.formats import FORMATS
from pretrain_cli.data.reading.input_files import InputFile, Span
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError, first_line

OTHER_ERRORS = {"LZMAError", "ZstdError", "ArrowException", "error"}
"""What compression libraries and pyarrow raise for damaged files, by name, so that they needn't be imported."""


def read(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The records of a span, in order.

    Raises:
        DataError: the file can't be opened, is cut short, isn't text, or has no text column.
    """
    reader = FORMATS[span.file.format].read
    try:
        yield from reader(span, settings)
    except DataError:
        raise
    except (EOFError, OSError, ValueError, OverflowError, MemoryError) as error:  # a damaged length asks for terabytes
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise _unreadable(span, error) from error
    except Exception as error:
        if any(kind.__name__ in OTHER_ERRORS for kind in type(error).__mro__):
            raise _unreadable(span, error) from error
        raise


def read_all(files: Iterable[InputFile], data: DataConfig) -> Iterator[Record]:
    """The records of all files, without the files that can't be read if ``data.on_error`` is "skip"."""
    for file in files:
        try:
            yield from read(Span(file), ReadSettings.of(data))
        except DataError:
            if data.on_error == "fail":
                raise


def _unreadable(span: Span, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(
        f"{span.file.path} can't be read: {reason}.", "Check whether the file is complete, or leave it out."
    )
