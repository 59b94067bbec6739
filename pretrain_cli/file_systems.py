"""Opens storage behind addresses with fsspec: the web with limits, and S3 by pyarrow where s3fs isn't installed."""

from __future__ import annotations

import functools
import io
import os
from importlib.util import find_spec
from typing import Any

CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
CONNECT_S, ANSWER_S = 10.0, 60.0
"""How long a connection and an answer are waited for; whether to try again is decided elsewhere."""


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

            found = self.fs.get_file_info(
                FileSelector(self._strip_protocol(path).rstrip("/"), recursive=True, allow_not_found=True)
            )
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


class _StoredBytes(io.RawIOBase):
    """A file of pyarrow's as Python knows files."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size = file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
