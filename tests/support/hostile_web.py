"""Serves addresses that misbehave, on the loopback address: each path is one way to do so."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LINE = json.dumps({"text": "A sentence that a server sends. " * 4}).encode() + b"\n"


class Hostile(BaseHTTPRequestHandler):
    """Each path is a method of this class; its answer to HEAD is the head of that to GET."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        answer: Callable[[], None] = getattr(self, self.path.lstrip("/").partition("/")[0].partition(".")[0])
        with contextlib.suppress(OSError, ValueError):
            answer()

    def do_HEAD(self) -> None:
        self.do_GET()

    def head(self, status: int = 200, **headers: object) -> bool:
        """Send the head; returns whether a body is wanted."""
        self.send_response(status)
        for name, value in {"Content_Type": "application/octet-stream", "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        return self.command == "GET"

    def silent(self) -> None:
        time.sleep(3600)

    def drip(self) -> None:
        if self.head(Content_Length=1_000_000):
            for place in range(1_000_000):
                self.wfile.write(LINE[place % len(LINE) :][:1])
                time.sleep(0.2)

    def stalls(self) -> None:
        if self.head(Content_Length=1_000_000):
            self.wfile.write(LINE * 100)
            time.sleep(3600)

    def slow_head(self) -> None:
        self.send_response(200)
        self.flush_headers()
        for number in range(100_000):
            self.wfile.write(f"X-{number}: y\r\n".encode())
            time.sleep(0.2)

    def endless(self) -> None:
        if self.head():
            while True:
                self.wfile.write(LINE * 1000)

    def endless_page(self) -> None:
        if self.head(Content_Type="text/html"):
            while True:
                self.wfile.write(LINE * 1000)

    def short(self) -> None:
        if self.head(Content_Length=len(LINE) * 100):
            self.wfile.write(LINE * 50)

    def longer(self) -> None:
        """Less is announced by HEAD than GET gives."""
        if self.head(Content_Length=len(LINE) * (10 if self.command == "HEAD" else 100)):
            self.wfile.write(LINE * 100)

    def unannounced(self) -> None:
        """The same, where GET announces nothing."""
        if self.head(**({"Content_Length": len(LINE) * 10} if self.command == "HEAD" else {})):
            self.wfile.write(LINE * 100)

    def shrunk(self) -> None:
        if self.head(**({"Content_Length": len(LINE) * 100} if self.command == "HEAD" else {})):
            self.wfile.write(LINE * 10)

    def denied(self) -> None:
        self.head(403, Content_Length=0)

    def members(self) -> None:
        """For "me" with the password "secret"."""
        if self.headers.get("Authorization") == "Basic bWU6c2VjcmV0":
            self.fine()
        else:
            self.head(401, Content_Length=0)

    def absent(self) -> None:
        self.head(404, Content_Length=0)

    def unsized(self) -> None:
        if self.head():
            self.wfile.write(LINE * 100)

    def part(self) -> None:
        """A part of the file, whatever is asked for."""
        whole = len(LINE) * 100
        if self.command == "HEAD":
            self.head(Content_Length=whole)
        elif self.head(206, Content_Length=len(LINE) * 10, Content_Range=f"bytes 0-{len(LINE) * 10 - 1}/{whole}"):
            self.wfile.write(LINE * 10)

    def other_part(self) -> None:
        whole = len(LINE) * 100
        if self.command == "HEAD":
            self.head(Content_Length=whole)
        elif self.head(206, Content_Length=len(LINE) * 100, Content_Range=f"bytes {whole}-{2 * whole - 1}/{2 * whole}"):
            self.wfile.write(LINE * 100)

    def larger_part(self) -> None:
        if self.command == "HEAD":
            self.head(Content_Length=len(LINE) * 10)
        elif self.head(206, Content_Range=f"bytes 0-{len(LINE) * 10 - 1}/{len(LINE) * 10}"):
            while True:
                self.wfile.write(LINE * 1000)

    def unsized_part(self) -> None:
        if self.head(206, Content_Range=f"bytes 0-{len(LINE) * 10 - 1}/*", Content_Length=len(LINE) * 10):
            self.wfile.write(LINE * 10)

    def ranges(self) -> None:
        self._ranges(LINE * 100)

    def drops(self) -> None:
        """The connection is closed after a third of the file, or of what is asked for, though all was announced."""
        self._ranges(LINE * 60_000, cut=len(LINE) * 20_000 + 7)

    def drops_then_other(self) -> None:
        """The same, of a file that is another one when it is asked for again."""
        tag = '"second"' if "Range" in self.headers else '"first"'
        if self.headers.get("If-Range", tag) == tag:
            self._ranges(LINE * 60_000, cut=len(LINE) * 20_000, ETag=tag)
        elif self.head(Content_Length=len(LINE) * 60_000, ETag=tag):
            self.wfile.write(LINE.swapcase() * 60_000)

    def drops_early(self) -> None:
        """A few bytes at a time."""
        self._ranges(LINE * 60_000, cut=10)

    def archive(self) -> None:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("inner.jsonl"), LINE * 100)
        self._ranges(made.getvalue())

    def _ranges(self, content: bytes, cut: int | None = None, **headers: object) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if "Range" in self.headers else {}
        if self.head(206 if more else 200, Content_Length=len(content) - start, **more, **headers):
            self.wfile.write(content[start:][:cut])

    def no_ranges(self) -> None:
        """20 MB of a server that knows no ranges, as Python's own."""
        times = 20_000_000 // len(LINE)
        if self.head(Content_Length=times * len(LINE)):
            self.wfile.write(LINE * times)

    def loop(self) -> None:
        self.head(302, Location="/loop.jsonl", Content_Length=0)

    def to_file(self) -> None:
        self.head(302, Location="file:///etc/passwd", Content_Length=0)

    def inwards(self) -> None:
        self.head(302, Location=f"http://127.0.0.1:{self.server.server_address[1]}/fine.jsonl", Content_Length=0)

    def fine(self) -> None:
        if self.head(Content_Length=len(LINE) * 100):
            self.wfile.write(LINE * 100)

    def bomb(self) -> None:
        if self.head(Content_Encoding="gzip"):
            packed = gzip.compress(bytes(10_000_000))
            while True:
                self.wfile.write(packed)

    def encoded(self) -> None:
        packed = gzip.compress(LINE * 100)
        if self.head(Content_Encoding="gzip", Content_Length=len(packed)):
            self.wfile.write(packed)

    def maze(self) -> None:
        if self.head(Content_Type="text/html"):
            self.wfile.write(b'<a href="a/">a</a> <a href="b/">b</a> <a href="x.jsonl">x</a>')


@contextlib.contextmanager
def serve(host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server."""
    server = ThreadingHTTPServer((host, 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{host}:{server.server_port}"
    server.shutdown()
    server.server_close()
