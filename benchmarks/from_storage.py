"""Trains from object storage and from disk: `python benchmarks/from_storage.py TEXT --server moto_server`.

The server is a real S3 server on the loopback address, moto's (`pip install 'moto[server]'`, in an environment of its
own). The rows are in several files, of which a few are here at a time. Each line is a whole `ptk train` with nothing
copied before, and the weights are compared with those from disk.

    speed     from disk and from storage, in turn: seconds of a step, and of the whole command
    stopped   the server is stopped (SIGSTOP) for a minute while steps are made
    killed    the server is killed and doesn't come back; patience is cut to --patience seconds
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ADDRESS = "s3://bucket/out"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
PREPARE = """
import sys
from pretrain_cli.data.rows import writer
writer.BATCH_TOKENS, writer.FILE_BYTES = 1 << 15, int(sys.argv.pop(1))
from pretrain_cli.cli.app import main
main()
"""
IMPATIENT = """
import sys
from pretrain_cli import remote
remote.PATIENCE_S = float(sys.argv.pop(1))
from pretrain_cli.cli.app import main
main()
"""


@contextlib.contextmanager
def served(program: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server with an empty bucket, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
                break
            time.sleep(0.1)
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.wait()


class Trainer:
    """Runs `ptk train` with an empty cache."""

    def __init__(self, spare: Path, server: str, steps: int) -> None:
        self.spare, self.steps, self.runs = spare, steps, 0
        self.environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": server}

    def start(self, place: str, *code: str) -> tuple[subprocess.Popen[str], Path]:
        """A process that trains on the rows at ``place``, and where its artifacts are on this machine."""
        self.runs += 1
        cache = self.spare / f"cache-{self.runs}"
        words = [
            "train", "--artifacts", place, "--run", f"r{self.runs}", "--max-steps", str(self.steps), "--size", "micro",
            "--set", "train.shuffle_files=2", "--set", "train.save_steps=20", "--json",
        ]  # fmt: skip
        command = [sys.executable, *(code or ("-m", "pretrain_cli")), *words]
        environment = {**self.environment, "PTK_CACHE": str(cache)}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.spare
        )
        return process, cache

    def metrics(self, place: str, cache: Path) -> Path:
        """The run's metrics, here."""
        folders = [Path(place)] if "://" not in place else sorted((cache / "artifacts").glob("*"))
        return folders[0] / "runs" / f"r{self.runs}" / "metrics.jsonl" if folders else Path("none")

    def line(self, name: str, place: str, process: subprocess.Popen[str], cache: Path) -> dict[str, Any]:
        """Wait for it, print its line, and give what it printed, with the seconds and the weights' hash."""
        begun = time.monotonic()
        said, errors = process.communicate()
        result: dict[str, Any] = json.loads(said)
        result["whole"] = time.monotonic() - begun
        run = self.metrics(place, cache).parent
        weights = run / "model" / "model.safetensors"
        result["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights.exists() else ""
        result["checkpoints"] = len(list((run / "checkpoints").glob("step-*")))
        if "error" in result:
            told = f"{result['error']['message']} {result['error']['hint']}"
            kept = f"{result['checkpoints']} checkpoints here"
            print(f"| {name} | exit {process.returncode}: {told} | {result['whole']:.1f} s | {kept} |", flush=True)
            return result
        cells = f"{result['tokens_per_second']:,.0f} | {result['whole']:.1f} s | {result['weights']}"
        print(f"| {name} | {cells} |", flush=True)
        if errors.strip():
            print(f"  {errors.strip().splitlines()[-1]}", file=sys.stderr)
        return result


def wait_for_steps(metrics: Any, steps: int) -> None:
    """Until so many steps are recorded."""
    latest = time.monotonic() + 300
    while time.monotonic() < latest:
        with contextlib.suppress(OSError, ValueError, IndexError):
            last = json.loads(metrics().read_text("utf-8").splitlines()[-1])
            if last.get("step", 0) >= steps:
                return
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--server", default="moto_server")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stopped", type=float, default=60.0, help="seconds")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds, of the run whose server is killed")
    parser.add_argument("--file-bytes", type=int, default=600_000, help="of a file of rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(given.server) as (server, address):
        spare = Path(name)
        trainer, here = Trainer(spare, address, given.steps), str(spare / "here")
        for place in (here, ADDRESS):
            words = ["prepare", str(given.text.resolve()), "--artifacts", place, "--quiet"]
            subprocess.run([sys.executable, "-c", PREPARE, str(given.file_bytes), *words], check=True,
                           env={**trainer.environment, "PTK_CACHE": str(spare / "first")}, cwd=spare)  # fmt: skip
        files = len(list((Path(here) / "data" / "train").glob("*.arrow")))
        print(
            f"{files} files of rows\n\n| training | tokens/s | whole command | weights |\n| --- | ---: | ---: | --- |"
        )
        speeds: dict[str, list[float]] = {here: [], ADDRESS: []}
        for _ in range(given.turns):
            for place, title in ((here, "from disk"), (ADDRESS, "from storage")):
                result = trainer.line(title, place, *trainer.start(place))
                speeds[place].append(result["tokens_per_second"])
        ratio = statistics.median(far / near for near, far in zip(speeds[here], speeds[ADDRESS], strict=True))
        print(f"\nfrom storage {ratio:.3f} times the tokens/s from disk, the median of {given.turns}\n", flush=True)

        process, cache = trainer.start(ADDRESS)
        wait_for_steps(lambda: trainer.metrics(ADDRESS, cache), 10)
        server.send_signal(signal.SIGSTOP)
        threading.Timer(given.stopped, lambda: server.send_signal(signal.SIGCONT)).start()
        trainer.line(f"from storage, stopped for {given.stopped:.0f} s", ADDRESS, process, cache)

        process, cache = trainer.start(ADDRESS, "-c", IMPATIENT, str(given.patience))
        wait_for_steps(lambda: trainer.metrics(ADDRESS, cache), 10)
        server.kill()
        trainer.line("from storage, server killed", ADDRESS, process, cache)


if __name__ == "__main__":
    main()
