"""Calls one function in several processes that are connected over gloo, and gives what each returned."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def on_ranks(count: int, function: str, **arguments: Any) -> list[Any]:
    """What ``function`` ("module:name") returns on each of ``count`` ranks, as JSON carries it.

    It is called with ``arguments`` inside `together("cpu")`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    order = json.dumps({"function": function, "arguments": arguments})
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, order],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    ends = [process.communicate(timeout=120) for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(err[-3000:] for _, err in ends)
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]


def serve(order: dict[str, Any]) -> None:
    """Call what ``order`` names, and print what it returns."""
    from pretrain_cli.training.processes.agreement import together

    module, _, name = order["function"].partition(":")
    with together("cpu"):
        found = getattr(importlib.import_module(module), name)(**order["arguments"])
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
