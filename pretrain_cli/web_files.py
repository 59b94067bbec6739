"""Reads files behind web addresses with fsspec, with limits for servers that stall, lie or never end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from pretrain_cli.file_systems import ANSWER_S, CONNECT_S
from pretrain_cli.formatting import byte_size

LEAST_BYTES_PER_S = 100
"""A server that sends less while it is waited for, for ``ANSWER_S``, is given up."""
MOST_UNSIZED = 10**11
"""Bytes of an answer that doesn't say how long it is."""
TRIES, FIRST_WAIT_S = 5, 1.0
"""How often a connection that ended early is made again, and the first pause; each next one is twice as long."""
RENEWING_BYTES = 1 << 20
"""Once so many came of a connection, there are as many tries again: more often nothing is lost by giving up."""
MOST_PAGE = 1 << 24
"""Bytes of a page whose links are looked for."""
MOST_PAGES, PAGES_S = 1000, 600.0
"""Pages of one folder at an address, and how long they are waited for."""


class PageError(Exception):
    """A page of links that can't be had. Not an OSError, which fsspec takes for a page without links."""


class EndedEarlyError(OSError):
    """A connection ended before the file did: what is left can be asked for."""


class WebFiles(HTTPFileSystem):  # type: ignore[misc]
    """Files are read by one request each, from where they are read on."""

    def __init__(self, **options: Any) -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_check_redirect)
        settings = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            "trace_configs": [tracing],
            "response_class": _Page,
            "trust_env": True,  # a login in ~/.netrc, and the variables that name a proxy
            **options.pop("client_kwargs", {}),
        }
        super().__init__(client_kwargs=settings, **options)
        self._pages = 0

    async def _find(self, path: str, *more: Any, **options: Any) -> Any:
        self._pages = 0
        try:
            async with asyncio.timeout(PAGES_S):
                return await super()._find(path, *more, **options)
        except (TimeoutError, RecursionError) as error:
            raise OSError("its pages link to others without an end") from error

    async def _ls_real(self, url: str, *more: Any, **options: Any) -> Any:
        self._pages += 1
        if self._pages > MOST_PAGES:
            raise PageError(f"it has over {MOST_PAGES:,} pages that link to others")
        try:
            async with _answering():
                return await super()._ls_real(url, *more, **options)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise PageError(str(error)) from error

    async def _isdir(self, path: str) -> bool:
        self._pages = 0
        try:
            return bool(await super()._isdir(path))
        except PageError:  # a page that is too large or slow for one of links is a file
            return False

    async def _info(self, url: str, **options: Any) -> Any:
        try:
            async with _answering():
                return await super()._info(url, **options)
        except FileNotFoundError as error:  # whatever the reason is
            cause = error.__cause__
            if cause is None or getattr(cause, "status", 0) == 404:
                raise
            raise OSError(_reason(cause)) from cause

    def _open(self, path: str, mode: str = "rb", size: int | None = None, **options: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError
        return io.BufferedReader(_WebFile(self, path, size or self.info(path).get("size")))


class _Page(aiohttp.ClientResponse):
    """An answer that is read at once is a page of links, and small."""

    async def read(self) -> bytes:
        blocks, size = [], 0
        while self._body is None:
            block = await self.content.readany()
            size += len(block)
            if size > MOST_PAGE:
                raise OSError(f"its page of links is larger than {byte_size(MOST_PAGE)}")
            blocks.append(block)
            if not block:
                self._body = b"".join(blocks)
        return await super().read()


class _WebFile(io.RawIOBase):
    """The bytes of one address. Where its connection ends early, the rest of the same file is asked for.

    Args:
        system: whose session is used.
        url: the address.
        size: bytes, as announced; None: unknown.
    """

    def __init__(self, system: WebFiles, url: str, size: int | None) -> None:
        self.size = size
        self._system, self._url = system, url
        self._place = 0
        self._answer: aiohttp.ClientResponse | None = None
        self._waited_s, self._came = 0.0, 0
        self._version, self._tries, self._ended_at = "", 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.size is not None

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self.size is None:
            raise io.UnsupportedOperation("seek")
        place = max(0, offset + (0, self._place, self.size)[whence])
        if place != self._place:
            self._drop()
            self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._read(len(buffer))
        except EndedEarlyError as error:
            block = self._continued(len(buffer), error)
        buffer[: len(block)] = block
        return len(block)

    def _continued(self, most: int, error: EndedEarlyError) -> bytes:
        if self.size is None:
            raise error
        if self._place - self._ended_at > RENEWING_BYTES:
            self._tries = 0
        self._ended_at = self._place
        while self._tries < TRIES:
            self._drop()
            time.sleep(FIRST_WAIT_S * 2**self._tries)
            self._tries += 1
            try:
                return self._read(most)
            except EndedEarlyError:
                continue
            except OSError:  # the server has no parts, or another file by now
                break
        raise error

    def _read(self, most: int) -> bytes:
        if self._answer is None:
            if self._place and self._place == self.size:
                return b""
            self._answer = sync(self._system.loop, self._ask)
        block: bytes = sync(self._system.loop, self._next, self._answer, most)
        self._place += len(block)
        if self._place > (MOST_UNSIZED if self.size is None else self.size):
            told = "without an end" if self.size is None else f"larger than the {byte_size(self.size)} announced"
            raise OSError(f"it is {told}, so that it was given up after {byte_size(self._place)}")
        if not block and self.size is not None and self._place < self.size:
            raise EndedEarlyError(f"it ended after {byte_size(self._place)} of {byte_size(self.size)}")
        return block

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._answer is not None:
            self._system.loop.call_soon_threadsafe(self._answer.close)
            self._answer = None

    async def _ask(self) -> aiohttp.ClientResponse:
        headers = {**self._system.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if self._place:
            headers["Range"] = f"bytes={self._place}-"
            if self._version:
                headers["If-Range"] = self._version
        session = await self._system.set_session()
        async with _answering():
            answer: aiohttp.ClientResponse = await session.get(
                self._system.encode_url(self._url), **{**self._system.kwargs, "headers": headers}
            )
        try:
            self._check(answer)
        except BaseException:
            answer.close()
            raise
        tag = answer.headers.get("ETag", "")
        self._version = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        return answer

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        """Refuse an answer that isn't the file from `_place` on."""
        if answer.status == 404:
            raise FileNotFoundError(self._url)
        if answer.status >= 400:
            raise OSError(f"the server answers {answer.status} {answer.reason or ''}".rstrip())
        if not self._place and answer.status != 200:
            raise OSError(f"the server answers with a part of it (status {answer.status})")
        if self._place and not _begins_at(answer, self._place):
            raise OSError("the server doesn't give what comes after its beginning")
        length = answer.headers.get("Content-Length", "")
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        if self.size is None or encoded or not length.isdecimal() or int(length) == self.size - self._place:
            return
        raise OSError(f"the server first announced {self.size:,} bytes, and now sends {int(length):,}")

    async def _next(self, answer: aiohttp.ClientResponse, most: int) -> bytes:
        begun = time.monotonic()
        async with _answering():
            block = await answer.content.read(most)
        self._waited_s += time.monotonic() - begun
        self._came += len(block)
        if block and self._waited_s > ANSWER_S:
            if self._came < LEAST_BYTES_PER_S * self._waited_s:
                raise OSError(f"only {self._came:,} bytes came in the last {self._waited_s:.0f} s")
            self._waited_s, self._came = 0.0, 0
        return bytes(block)


def _begins_at(answer: aiohttp.ClientResponse, place: int) -> bool:
    span = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
    return answer.status == 206 and span == str(place) and not encoded


@contextlib.asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Wait for what is in the block for `ANSWER_S`; whatever the network does becomes an `OSError` that says it."""
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        if getattr(error, "status", 0) == 404:
            raise FileNotFoundError(str(error)) from error
        ended = isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError))
        raise (EndedEarlyError if ended else OSError)(_reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.TooManyRedirects):
        return "it redirects without an end"
    if isinstance(error, (aiohttp.RedirectClientError, aiohttp.NonHttpUrlClientError)):
        return f"it redirects to {error}, which isn't a web address"
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"the server doesn't answer ({ANSWER_S:.0f} s)"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended before the file did"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server answers {error.status} {error.message.splitlines()[0] if error.message else ''}".rstrip()
    return (str(error) or type(error).__name__).splitlines()[0]


async def _check_redirect(session: object, context: object, made: aiohttp.TraceRequestRedirectParams) -> None:
    """Refuse to be led from the internet into this machine or its network, whose pages are no text of the user's."""
    begun, led = made.url.host, made.url.join(made.url.__class__(_led_to(made))).host
    if led and led != begun and await _is_inside(led) and not await _is_inside(begun or ""):
        raise OSError(f"it redirects to {led}, an address in this machine's own network")


def _led_to(made: aiohttp.TraceRequestRedirectParams) -> str:
    """What aiohttp follows."""
    headers = made.response.headers
    return headers.get("Location") or headers.get("URI") or ""


async def _is_inside(host: str) -> bool:
    """Whether one of a host's addresses isn't of the internet."""
    with contextlib.suppress(OSError, UnicodeError):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return any(map(is_private, _addresses(found)))
    return False


def _addresses(found: list[Any]) -> Iterator[str]:
    return (str(entry[4][0]).partition("%")[0] for entry in found)


def is_private(address: str) -> bool:
    """Whether an IP address is of this machine or of a network that isn't the internet."""
    return not ipaddress.ip_address(address).is_global
