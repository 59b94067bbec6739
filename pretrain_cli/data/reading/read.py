"""Reads an input file's records, whatever its format, and says what is wrong with a file that can't be read."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import IO

from pretrain_cli.config.model import DataConfig
from pretrain_cli.data.reading.archives import read_archive
from pretrain_cli.data.reading.documents import UNREADABLE_HINT, Record, Rejected
from pretrain_cli.data.reading.formats import FORMATS, Reader, format_of
from pretrain_cli.data.reading.input_files import InputFile, Span, open_bytes
from pretrain_cli.data.reading.settings import ReadSettings
from pretrain_cli.errors import DataError, first_line

OTHER_ERRORS = {"LZMAError", "ZstdError", "ArrowException", "TarError", "BadZipFile", "error"}
"""What compression libraries and pyarrow raise for damaged files, by name, so that they needn't be imported."""


def read(span: Span, settings: ReadSettings) -> Iterator[Record]:
    """The records of a span, in order.

    Raises:
        DataError: the file can't be opened, is cut short, isn't text, or has no text column.
    """
    yield from _with_errors(_read(span, settings), span)


def _with_errors(records: Iterator[Record], span: Span) -> Iterator[Record]:
    """The records; what libraries raise for a damaged file becomes a `DataError`."""
    try:
        yield from records
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


def _read(span: Span, settings: ReadSettings) -> Iterator[Record]:
    reader = FORMATS[span.file.format].read
    if span.file.format == "hub" and reader:
        yield from reader(io.BytesIO(), span, settings)
        return
    with open_bytes(span.file) as stream:
        if reader:
            yield from reader(stream, span, settings)
        else:
            yield from read_archive(stream, span, settings, _member_reader)


def _member_reader(name: str) -> tuple[Reader | None, str, str]:
    """(reader, format, compression) of a file in an archive; archives in archives aren't read."""
    format, compression = format_of(name)
    own = FORMATS[format].read if format else None
    if own is None:
        return None, format, compression

    def read_member(stream: IO[bytes], span: Span, settings: ReadSettings) -> Iterator[Record]:
        return _with_errors(own(stream, span, settings), span)

    return read_member, format, compression


def read_all(file: InputFile, data: DataConfig, *, strict: bool) -> Iterator[Record]:
    """The records of a file; the last one says that the rest can't be read, which is an error if ``strict``."""
    try:
        yield from read(Span(file), ReadSettings.of(data))
    except DataError as error:
        if strict:
            raise
        yield Rejected(file.name, 0, 0, max(0, file.size), "unreadable_file", error.message)


def _unreadable(span: Span, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{span.file.name} can't be read: {reason}.", UNREADABLE_HINT)
