"""Encodes texts with fastokens."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain_cli.data.encoding.vocabulary_bytes import read_spec
from pretrain_cli.tokenizer.long_words import longest_word, may_hold_long_word, without_limit

Ids = npt.NDArray[np.uint32]


class FastEngine:
    """A tokenizer.json in fastokens, without truncation or padding.

    fastokens is 15 times as fast without a second splitting step, so a tokenizer with a longest word is opened twice:
    texts that hold no longer word go to the one without the limit.
    """

    def __init__(self, file: Path) -> None:
        spec = read_spec(file)
        self._limit = longest_word(spec)
        self._limited: Any = None
        self._file = file
        self._usual = _open(json.dumps(without_limit(spec)) if self._limit else file.read_text(encoding="utf-8"))

    def encode(self, texts: Sequence[str], parse_special: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
        """(ids [n], offsets [len(texts) + 1]): text i's ids are ``ids[offsets[i]:offsets[i + 1]]``.

        Raises:
            Exception: a byte has no token; fastokens' own class.
        """
        long = [self._limit > 0 and may_hold_long_word(text, self._limit) for text in texts]
        if not any(long):
            return _encode(self._usual, texts, parse_special)
        if self._limited is None:
            self._limited = _open(self._file.read_text(encoding="utf-8"))
        made: list[Ids] = []
        sizes: list[npt.NDArray[np.int64]] = []
        for is_long, group in itertools.groupby(zip(long, texts, strict=True), key=lambda entry: entry[0]):
            engine = self._limited if is_long else self._usual
            ids, offsets = _encode(engine, [text for _, text in group], parse_special)
            made.append(ids)
            sizes.append(np.diff(offsets))
        return np.concatenate(made), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


def load_fast(file: Path) -> FastEngine:
    """The fast engine of a tokenizer.json, which those who ask one after the other share."""
    return _load_fast(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # a vocabulary of 32,000 takes 0.16 s: the check and the work share one
def _load_fast(file: Path, modified_ns: int) -> FastEngine:
    return FastEngine(file)


def _open(content: str) -> Any:
    import fastokens

    fast = fastokens.Tokenizer.from_json_str(content)
    fast.no_truncation()
    fast.no_padding()
    return fast


def _encode(engine: Any, texts: Sequence[str], parse_special: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
    ids, offsets = engine.encode_batch_flat(list(texts), split_special_tokens=not parse_special)
    return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)
