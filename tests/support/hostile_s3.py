"""Serves a bucket that misbehaves, on the loopback address: each key's folder is one way to do so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LINE = b'{"text": "A sentence that a bucket holds. A sentence that a bucket holds."}\n'
BODY = LINE * 100
PAUSE_S, ENDLESS_S = 0.1, 4.0
"""What never ends does so after this time: pyarrow waits for it."""
LISTING = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'


class Hostile(BaseHTTPRequestHandler):
    """Lists and gives `a.jsonl` in each folder."""

    protocol_version = "HTTP/1.1"
    listed = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        with contextlib.suppress(OSError):
            if "list-type" in query:
                self.listing(query["prefix"][0].split("/")[0])
            elif address.path.endswith(".jsonl"):
                self.file(address.path.split("/")[2])
            else:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": len(body), "ETag": '"a"', "Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def listing(self, way: str) -> None:
        entry = f"<Contents><Key>{way}/a.jsonl</Key><Size>{len(BODY)}</Size><ETag>a</ETag></Contents>"
        if way == "outside":
            entry += f"<Contents><Key>{way}/../../b.jsonl</Key><Size>1</Size><ETag>a</ETag></Contents>"
        more = ""
        if way == "endless" and Hostile.listed * PAUSE_S < ENDLESS_S:
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            Hostile.listed += 1
            time.sleep(PAUSE_S)
        if way == "page":
            self.answer(200, b"<html>Please log in</html>", Content_Type="text/html")
        else:
            self.answer(200, f"{LISTING}<KeyCount>1</KeyCount>{more}{entry}</ListBucketResult>".encode())

    def file(self, way: str) -> None:
        if self.command == "HEAD":
            self.answer(200, BODY)
            return
        first, _, last = self.headers.get("Range", f"bytes=0-{len(BODY) - 1}").removeprefix("bytes=").partition("-")
        whole = BODY[: len(LINE) * 10] if way == "short" else BODY
        part = whole[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(BODY)}"
        if way != "drip":
            self.answer(206, part, Content_Range=span)
            return
        self.answer(206, b"", Content_Range=span, Content_Length=len(part))
        for place in range(int(ENDLESS_S / PAUSE_S)):
            self.wfile.write(part[place : place + 1])
            time.sleep(PAUSE_S)


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """The address of a server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
