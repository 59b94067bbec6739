"""Starts a real S3 server on the loopback address: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serve(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server with an empty bucket called bucket."""
    program = os.environ.get("PTK_MOTO_SERVER") or shutil.which("moto_server")
    if not program:
        pytest.skip("no S3 server: pip install 'moto[server]', in an environment of its own")
    server = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        latest = time.monotonic() + 60
        while time.monotonic() < latest:
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
                break
            time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()
