"""Opens storage behind addresses with fsspec: the web with limits, and S3 by pyarrow where s3fs isn't installed."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from pretrain_cli.formatting import duration
from pretrain_cli.interruptible import Stopped, interruptible

CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
CONNECT_S, ANSWER_S = 10.0, 60.0
"""How long a connection is waited for, and an answer or its next bytes; whether to try again is decided elsewhere."""
LIST_S = 600.0
"""How long a listing may take: some 100,000 files come in a minute, and one without an end is given up."""
READ_S, LEAST_BYTES_PER_S = 3 * ANSWER_S, 10_000
"""A read may take this long and, for its bytes, as long as at this rate."""
UNLIKELY = b"\xff"
"""A byte that no UTF-8 has."""
Result = TypeVar("Result")
unfinished = threading.Event()
"""Whether a call was left that may never end: pyarrow would wait for it when the process ends."""


@functools.cache
def fsspec_module() -> Any:
    """fsspec, which opens ``s3://`` addresses."""
    import fsspec

    for protocol in ("http", "https"):
        fsspec.register_implementation(
            protocol, "pretrain_cli.web_files.WebFiles", clobber=True, errtxt="aiohttp isn't installed"
        )
    if find_spec("s3fs") is None:
        for name in CHECKSUMS:  # storage other than Amazon's often knows no checksum after the content
            os.environ.setdefault(name, "when_required")
        fsspec.register_implementation("s3", _s3_class(), clobber=True)
    return fsspec


def _s3_class() -> type[Any]:
    from fsspec.implementations.arrow import ArrowFSWrapper

    class PyarrowS3(ArrowFSWrapper):  # type: ignore[misc]
        """S3 by pyarrow: keys as AWS's programs find them, another address than Amazon's from AWS_ENDPOINT_URL."""

        protocol = "s3"

        def __init__(self, **unused: Any) -> None:
            from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
            scheme, _, host = endpoint.rpartition("://")
            place: dict[str, str] = {"endpoint_override": host, "scheme": scheme or "https"} if host else {}
            super().__init__(
                S3FileSystem(
                    connect_timeout=CONNECT_S,
                    request_timeout=ANSWER_S,
                    allow_delayed_open=True,  # a small file takes one request instead of three
                    retry_strategy=AwsStandardS3RetryStrategy(max_attempts=2),
                    **place,
                )
            )

        def find(self, path: str, maxdepth: int | None = None, **more: Any) -> Any:
            """All files below ``path`` by one listing, not one for each folder."""
            from pyarrow.fs import FileSelector

            place = FileSelector(self._strip_protocol(path).rstrip("/"), recursive=True, allow_not_found=True)
            found = _waiting(lambda: self.fs.get_file_info(place), LIST_S)
            files = [each for each in found if each.is_file]
            infos = {each.path: {"name": each.path, "size": each.size, "type": "file"} for each in files}
            return infos if more.get("detail") else sorted(infos)

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            """Nothing: a key needs no folder."""

        def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **more: Any) -> Any:
            if mode == "rb":
                return _StoredBytes(self.fs.open_input_file(self._strip_protocol(path)))
            return super()._open(path, mode, block_size=block_size, **more)

    return PyarrowS3


def _waiting(call: Callable[[], Result], most_s: float) -> Result:
    """What a call of pyarrow returns, which hears no Ctrl-C and waits for as long as single bytes come.

    Raises:
        TimeoutError: it takes longer than ``most_s``.
    """
    late = threading.Event()
    timer = threading.Timer(most_s, late.set)
    timer.daemon = True
    timer.start()
    try:
        return interruptible(call, late)
    except KeyboardInterrupt:
        unfinished.set()
        raise
    except Stopped:
        unfinished.set()
        raise TimeoutError(f"the storage wasn't done after {duration(most_s)}") from None
    finally:
        timer.cancel()


class _StoredBytes(io.RawIOBase):
    """A file of pyarrow's as Python knows files."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size = int(_waiting(file.size, READ_S))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()
        block = bytearray(max(0, min(len(buffer), self.size - place)))  # own memory: a call that is left writes on
        block[-1:] = UNLIKELY[: len(block)]
        count = int(_waiting(lambda: self._file.readinto(block), READ_S + len(block) / LEAST_BYTES_PER_S))
        if count < len(block) or (block[-1:] == UNLIKELY and self._is_missing(place + count - 1)):
            raise OSError(f"not all of its {self.size:,} bytes came")
        buffer[:count] = block
        return count

    def _is_missing(self, place: int) -> bool:
        """Whether the storage has no byte there. pyarrow tells no answer that is too short: it leaves the buffer."""
        byte = bytearray(1)
        self._file.seek(place)
        _waiting(lambda: self._file.readinto(byte), READ_S)
        return byte != UNLIKELY

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
