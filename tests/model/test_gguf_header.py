"""A .gguf file that tells of more than it holds, or of more than a model has, is refused before a library reads it."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pretrain_cli.artifacts import Artifacts
from pretrain_cli.base import find_base
from pretrain_cli.errors import ModelError

pytest.importorskip("gguf")
UINT8, UINT32, TEXT, LIST = 0, 4, 8, 9


def text(value: str, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if size is None else size) + value.encode()


def setting(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def values(kind: int, many: int, content: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, many) + content


def tensor(name: str, sizes: Sequence[int], offset: int = 0) -> bytes:
    shape = b"".join(struct.pack("<Q", size) for size in sizes)
    return text(name) + struct.pack("<I", len(sizes)) + shape + struct.pack("<IQ", 0, offset)


def gguf(settings: Sequence[bytes], tensors: Sequence[bytes] = (), keys: int = 0, many: int = 0) -> bytes:
    counts = struct.pack("<IQQ", 3, many or len(tensors), keys or len(settings))
    return b"".join((b"GGUF", counts, *settings, *tensors)) + b"\0" * 10_000


CASES = {
    "it doesn't begin with GGUF": b"something else",
    "it is empty": b"",
    "it ends within its header": b"GGUF\3\0\0",
    "settings, more than 10,000": gguf([], keys=2**60),
    "tensors, more than 100,000": gguf([], many=2**60),
    "lists have more than 2,000,000": gguf([setting("a", LIST, values(UINT32, 2**60))]),
    "2,000,000 values": gguf([setting(name, LIST, values(UINT8, 1_500_000, b"\0" * 1_500_000)) for name in "ab"]),
    "ends within": gguf([setting("a", LIST, values(TEXT, 1_000_000))]),
    "ends within its": gguf([setting("a", TEXT, text("x", 2**63))]),
    "a list of lists": gguf([setting("a", LIST, values(LIST, 1) * 5_000)]),
    "unknown kind 99": gguf([setting("a", 99, b"")]),
    "99,999 layers, and has 1 tensor": gguf(
        [setting("llama.block_count", UINT32, struct.pack("<I", 99_999))], [tensor("a", [2, 2])]
    ),
    "a lies beyond its end": gguf([], [tensor("a", [2**33, 2**33])]),
    "b lies beyond its end": gguf([], [tensor("b", [2, 2], offset=2**62)]),
    "lie over each other": gguf([], [tensor(f"t{at}", [1_000]) for at in range(500)]),
    "dimensions, more than 4": gguf([], [tensor("a", [1] * 5)]),
}


@pytest.mark.parametrize("told", CASES)
def test_a_header_that_tells_of_what_is_not_there_is_refused_at_once(tmp_path: Path, told: str) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(CASES[told])
    begun = time.monotonic()
    with pytest.raises(ModelError, match=rf"a\.gguf can't be read as GGUF: .*{told}") as caught:
        find_base(str(file), Artifacts(tmp_path / "artifacts"))
    assert caught.value.hint == "Use a complete copy, or give the model as a folder."
    assert time.monotonic() - begun < 10
