"""Checks the header of a .gguf file before a library reads it: gguf makes an object of each value in it."""

from __future__ import annotations

import functools
import math
import mmap
import struct
from pathlib import Path

import xxhash

from pretrain_cli.errors import ModelError
from pretrain_cli.formatting import count_of, exact

MAGIC = b"GGUF"
MOST_KEYS, MOST_TENSORS = 10_000, 100_000
MOST_VALUES = 2_000_000
"""In all lists together. A vocabulary of 262,144 entries has 1.3 million: entries, merges, scores and kinds."""
MOST_DIMENSIONS = 4
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Kinds of values → bytes."""
WHOLE_NUMBERS = {4: "I", 5: "i", 10: "Q", 11: "q"}
TEXT, LIST = 8, 9


class _Damaged(Exception):
    """What is wrong with the file."""


def check_header(file: Path) -> None:
    """Check that a .gguf file holds what its header tells of, and no more than a model may have.

    Raises:
        ModelError: it doesn't.
        OSError: it can't be opened.
    """
    if reason := _look(file)[0]:
        raise ModelError(
            f"{file} can't be read as GGUF: {reason}.", "Use a complete copy, or give the model as a folder."
        )


def header_hash(file: Path) -> str:
    """Names the settings of a .gguf file, among them its tokenizer, and what tensors it has; not their values.

    Raises:
        OSError: it can't be opened.
    """
    return _look(file)[1]


def _look(file: Path) -> tuple[str, str]:
    status = file.stat()
    return _look_once(str(file), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _look_once(file: str, size: int, modified_ns: int) -> tuple[str, str]:
    """What is wrong with the file of this state, empty for nothing; the hash of its header, empty for a damaged one."""
    if not size:
        return "it is empty", ""
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = _Header(content)
        try:
            header.check()
        except _Damaged as error:
            return str(error), ""
        except (struct.error, OverflowError):
            return "it ends within its header", ""
        return "", str(xxhash.xxh3_128_hexdigest(content[: header.at]))


class _Header:
    """The part of a file that is read, up to ``at``."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at, self.order = content, 0, "<"
        self.values_left = MOST_VALUES

    def check(self) -> None:
        if self.content[:4] != MAGIC:
            raise _Damaged("it doesn't begin with GGUF")
        self.at = 4
        version = self._number("I")
        if version & 0xFFFF == 0:  # written on a machine that stores the high byte first
            self.order = ">"
        tensors, keys = self._number("Q"), self._number("Q")
        self._limit(tensors, MOST_TENSORS, "tensors")
        self._limit(keys, MOST_KEYS, "settings")
        for _ in range(keys):
            name, kind = self._text(), self._number("I")
            if name.endswith(b".block_count") and kind in WHOLE_NUMBERS:
                layers = self._number(WHOLE_NUMBERS[kind])
                if layers > tensors:
                    raise _Damaged(f"it tells of {exact(layers)} layers, and has {count_of(tensors, 'tensor')}")
            else:
                self._value(kind)
        self._check_tensors(tensors)

    def _check_tensors(self, many: int) -> None:
        from gguf import GGML_QUANT_SIZES

        sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        total = 0
        for _ in range(many):
            name, dimensions = self._text(), self._number("I")
            self._limit(dimensions, MOST_DIMENSIONS, "dimensions")
            elements = math.prod([self._number("Q") for _ in range(dimensions)])
            kind, offset = self._number("I"), self._number("Q")
            block, width = sizes.get(kind, (1, 0))
            total += elements * width // block
            if elements * width // block + offset > len(self.content):
                raise _Damaged(f"{name.decode(errors='replace')} lies beyond its end")
        if total > len(self.content):
            raise _Damaged("its tensors lie over each other")

    def _value(self, kind: int) -> None:
        if kind == TEXT:
            self._text()
        elif kind == LIST:
            of, many = self._number("I"), self._number("Q")
            if of == LIST:
                raise _Damaged("it holds a list of lists")
            self.values_left -= many
            if self.values_left < 0:
                raise _Damaged(f"its lists have more than {exact(MOST_VALUES)} values")
            if of == TEXT:
                for _ in range(many):
                    self._text()
            else:
                self._skip(self._width(of) * many)
        else:
            self._skip(self._width(kind))

    def _width(self, kind: int) -> int:
        if kind not in WIDTHS:
            raise _Damaged(f"it holds a value of the unknown kind {kind}")
        return WIDTHS[kind]

    def _text(self) -> bytes:
        size = self._number("Q")
        begin = self.at
        self._skip(size)
        return self.content[begin : begin + min(size, 200)]

    def _number(self, format: str) -> int:
        number: int = struct.unpack_from(self.order + format, self.content, self.at)[0]
        self.at += struct.calcsize(format)
        return number

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.content):
            raise _Damaged("it ends within its header")

    def _limit(self, many: int, most: int, what: str) -> None:
        if many > most:
            raise _Damaged(f"it tells of {exact(many)} {what}, more than {exact(most)}")
